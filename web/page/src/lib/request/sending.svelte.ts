// Sends a job, once: one key for one request, however often it is sent, so that a retry after a lost
// answer makes no second job.
import { jobs } from '../api';
import { jobTitle } from '../job-title';
import { leaving } from '../leaving';
import { notices } from '../notices.svelte';
import { jobPath } from '../paths';
import { isAborted } from '../problem';
import { randomId } from '../random';
import { router } from '../router.svelte';
import { patiently } from '../spread';
import { farm } from '../stream/farm.svelte';
import type { Job } from '../types';
import { bodyOf, type Request } from './body';

export class Sending {
  busy = $state(false);
  error = $state.raw<unknown>(null);
  #key = '';
  #sent: unknown = null;
  #left = leaving();

  /** Sends a request and shows its job, unless the reader has gone elsewhere; then a message says that it was accepted. */
  async submit(request: Request, same: unknown = request): Promise<void> {
    const job = await this.send(request, same);
    if (job === null) return;
    if (this.#left.aborted) notices.show(`${jobTitle(job)} was accepted.`);
    else router.go(jobPath(job.id));
  }

  /** `same` tells whether the request is the one that was sent last. `null`: it was not accepted, or is being sent. */
  async send(request: Request, same: unknown = request): Promise<Job | null> {
    if (this.busy) return null;
    if (this.#key === '' || this.#sent !== same) this.#key = randomId();
    this.#sent = same;
    this.busy = true;
    this.error = null;
    try {
      const body = bodyOf(request);
      const { job } = await patiently(() => jobs.submit(body, this.#key));
      this.#key = '';
      farm.put(job);
      return job;
    } catch (error) {
      if (!isAborted(error)) this.error = error;
      return null;
    } finally {
      this.busy = false;
    }
  }
}
