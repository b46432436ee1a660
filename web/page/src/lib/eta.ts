// How long a job still takes, where only its listing is known.
import type { Job } from './types';
import { toNumber } from './u64';

/**
 * Seconds to the end. Listings have no forecast, but the rate of each stage: the slowest of what is
 * left decides. `null` if a stage that has work left has no rate yet.
 */
export function secondsLeft(job: Pick<Job, 'eta_seconds' | 'stages'>): number | null {
  if (job.eta_seconds !== null) return job.eta_seconds;
  let longest: number | null = null;
  for (const stage of job.stages) {
    const left = toNumber(stage.total) - toNumber(stage.done) - toNumber(stage.stopped);
    if (left <= 0) continue;
    if (stage.images_per_second <= 0) return null;
    longest = Math.max(longest ?? 0, left / stage.images_per_second);
  }
  return longest;
}
