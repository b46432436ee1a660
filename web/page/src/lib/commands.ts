// Commands to jobs, and the jobs that a filter means.
import { jobs as api, type JobFilter } from './api';
import { everyPage, type Page } from './paged.svelte';
import { farm } from './stream/farm.svelte';
import { APPLIES_TO, JOB_STATES, type JobCommand } from './states';
import type { Job } from './types';

/** Carries a command out, and shows its result at once. A deleted job is none. */
export async function command(which: JobCommand, id: string): Promise<Job | null> {
  if (which === 'delete') {
    await api.remove(id, false);
    farm.forget(id);
    return null;
  }
  const job = await api[which](id);
  farm.put(job);
  return job;
}

export function applies(which: JobCommand, job: Job): boolean {
  return APPLIES_TO[which].includes(job.state);
}

/**
 * The jobs that a filter means and a command can change. It looks at every page, and
 * tells how many it has found so far.
 */
export async function matching(
  filter: JobFilter,
  which: JobCommand,
  options: { signal: AbortSignal; progress: (found: number) => void },
): Promise<Pick<Job, 'id' | 'name'>[]> {
  const states = APPLIES_TO[which].filter((state) => (filter.state ?? JOB_STATES).includes(state));
  if (states.length === 0) return [];
  const found: Pick<Job, 'id' | 'name'>[] = [];
  await everyPage(
    (token) => listJobs({ ...filter, state: states }, 1000, token, options.signal),
    (jobs) => {
      for (const { id, name } of jobs) found.push({ id, name });
      options.progress(found.length);
    },
  );
  return found;
}

/** One page of the jobs that a filter means. */
export async function listJobs(filter: JobFilter, size: number, token: string, signal: AbortSignal): Promise<Page<Job>> {
  const { jobs, next_page_token } = await api.list(filter, { page_size: size, page_token: token }, signal);
  return { rows: jobs, next: next_page_token };
}
