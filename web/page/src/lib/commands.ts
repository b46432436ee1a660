// Commands to jobs, and the jobs that a filter means.
import { jobs as api, type JobFilter } from './api';
import { farm } from './stream/farm.svelte';
import { APPLIES_TO, type JobCommand } from './states';
import type { Job, JobState } from './types';

/** Carries a command out, and shows its result at once. */
export async function command(which: JobCommand, id: string): Promise<void> {
  switch (which) {
    case 'pause':
      return farm.put(await api.pause(id));
    case 'resume':
      return farm.put(await api.resume(id));
    case 'cancel':
      return farm.put(await api.cancel(id));
    case 'retry':
      return farm.put(await api.retry(id));
    case 'delete':
      await api.remove(id, false);
      return farm.forget(id);
  }
}

export function applies(which: JobCommand, job: Job): boolean {
  return APPLIES_TO[which].includes(job.state);
}

/**
 * The ids of the jobs that a filter means and a command can change. It looks at every page, and
 * tells how many it has found so far.
 */
export async function matching(
  filter: JobFilter,
  which: JobCommand,
  options: { signal: AbortSignal; progress: (found: number) => void },
): Promise<string[]> {
  const states = APPLIES_TO[which].filter((state) => !filter.state || filter.state.includes(state));
  if (states.length === 0) return [];
  const ids: string[] = [];
  let token = '';
  do {
    const page = { page_size: 1000, ...(token ? { page_token: token } : {}) };
    const answer = await api.list({ ...filter, state: states as JobState[] }, page, options.signal);
    for (const job of answer.jobs) ids.push(job.id);
    token = answer.next_page_token;
    options.progress(ids.length);
  } while (token !== '' && !options.signal.aborted);
  return ids;
}
