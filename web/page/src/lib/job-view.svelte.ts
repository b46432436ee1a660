// One job and the states of its images, kept up to date while its page is open.
import { images as imagesApi, jobs as api } from './api';
import { isAborted, Problem, retryMs } from './problem';
import { farm, isOpen, newer } from './stream/farm.svelte';
import type { ImageMapAnswer, Job } from './types';
import { toNumber } from './u64';
import { ImageMap, type Span } from './wall/image-map';

const BETWEEN_UPDATES_MS = 1000;
const AGAIN_MS = 3000;
const BETWEEN_QUIET_LOOKS_MS = 10_000;

export class JobView {
  job = $state.raw<Job | null>(null);
  map = $state.raw<ImageMap | null>(null);
  error = $state.raw<unknown>(null);
  mapError = $state.raw<unknown>(null);
  deleted = $state(false);
  /** Prompt of the first image, which says more than a name. */
  prompt = $state('');
  /** Grows when states of images have changed. */
  ticks = $state(0);
  #abort = new AbortController();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #busy = false;
  #again = false;
  #last = 0;
  /** Version of the job at the last look. */
  #looked = 0;
  #listeners = new Set<(spans: Span[]) => void>();
  #end: () => void;
  #quiet: ReturnType<typeof setInterval>;

  constructor(readonly id: string) {
    this.#end = farm.listen((change) => {
      if (change.deleted.includes(id)) this.deleted = true;
      const told = change.jobs.find((one) => one.id === id);
      if (told) this.#told(told);
      // After a lost connection to another state of the farm, everything may be different.
      else if (change.reset) this.#soon();
    });
    // What a job waits for can change without a change of the job.
    this.#quiet = setInterval(() => {
      if (!document.hidden && !farm.paused && this.job && isOpen(this.job)) this.#soon();
    }, BETWEEN_QUIET_LOOKS_MS);
    void this.load();
  }

  /** Calls back with the parts of the map that changed. */
  listen(listener: (spans: Span[]) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  load = (): Promise<void> => this.#update();

  /** Takes over what a command answered. */
  put(job: Job): void {
    this.job = job;
    farm.put(job);
    if (!farm.paused) this.#soon();
  }

  close(): void {
    this.#abort.abort();
    this.#end();
    clearInterval(this.#quiet);
    clearTimeout(this.#timer);
  }

  #told(job: Job): void {
    const known = this.job;
    // Events do not say that a job waits behind others. The last known reason stays until the job itself is fetched.
    if (known && newer(job, known) !== known) {
      const waiting_for = isOpen(job) && job.waiting_for === '' ? known.waiting_for : job.waiting_for;
      this.job = { ...job, waiting_for, tasks_ahead: known.tasks_ahead };
    }
    if (toNumber(job.version) > this.#looked && !farm.paused) this.#soon();
  }

  #soon(): void {
    const wait = Math.max(0, this.#last + BETWEEN_UPDATES_MS - Date.now());
    this.#timer ??= setTimeout(() => this.#late(), wait);
  }

  #late(): void {
    this.#timer = undefined;
    void this.#update();
  }

  async #update(): Promise<void> {
    if (this.#busy) {
      this.#again = true;
      return;
    }
    this.#busy = true;
    this.#last = Date.now();
    clearTimeout(this.#timer);
    this.#timer = undefined;
    try {
      // The first map does not wait for the job. Whether it came matters only if the job did.
      const early = this.map === null ? api.map(this.id, {}, this.#abort.signal).catch(() => null) : null;
      const answer = await api.get(this.id, this.#abort.signal);
      // A command may have answered since, with a newer state.
      const job = this.job ? newer(this.job, answer) : answer;
      this.job = job;
      this.error = null;
      this.#looked = toNumber(answer.version);
      if (this.prompt === '' && job.state !== 'receiving') void this.#firstPrompt();
      await this.#updateMap(job, await early);
    } catch (error) {
      if (isAborted(error)) return;
      if (error instanceof Problem && error.status === 404 && this.job !== null) this.deleted = true;
      else this.error = error;
      this.#retry(error);
    } finally {
      this.#busy = false;
      if (this.#again) {
        this.#again = false;
        this.#soon();
      }
    }
  }

  #retry(error: unknown): void {
    const wait = retryMs(error, AGAIN_MS);
    if (wait !== null) this.#timer ??= setTimeout(() => this.#late(), wait);
  }

  async #firstPrompt(): Promise<void> {
    try {
      const { images } = await imagesApi.list(this.id, { page_size: 1 }, this.#abort.signal);
      this.prompt = images[0]?.prompt ?? '';
    } catch {
      // The page says nothing wrong without it, and the next update asks again.
    }
  }

  async #updateMap(job: Job, early: ImageMapAnswer | null): Promise<void> {
    const images = toNumber(job.images);
    if (images === 0 || job.state === 'receiving') return;
    const fresh = this.map === null || this.map.images !== images;
    const map = fresh ? new ImageMap(images) : this.map!;
    if (!fresh && map.known >= images && toNumber(job.version) <= toNumber(map.version)) return;
    try {
      const since = map.known >= images ? map.version : 0;
      let version: ImageMap['version'] | null = null;
      let first: number | string = 0;
      do {
        const query: { first_index?: number | string; since_version?: number | string } = {};
        if (toNumber(first) > 0) query.first_index = first;
        if (toNumber(since) > 0) query.since_version = since;
        const answer = early ?? (await api.map(this.id, query, this.#abort.signal));
        early = null;
        version ??= answer.version;
        const spans = map.apply(answer);
        // The first part is enough to begin with.
        if (this.map !== map) this.map = map;
        if (spans.length > 0) this.ticks += 1;
        for (const listener of this.#listeners) listener(spans);
        first = answer.next_index ?? 0;
      } while (toNumber(first) > 0);
      map.version = version;
      this.mapError = null;
    } catch (error) {
      if (isAborted(error)) throw error;
      this.mapError = error;
      this.#retry(error);
    }
  }
}
