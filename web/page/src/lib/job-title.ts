// What a job is called.
import type { Job } from './types';

/** The beginning of an id. Ids begin with their time, and this much of it differs between jobs. */
const ID_SHOWN = 13;

export function jobTitle(job: Pick<Job, 'id' | 'name'>): string {
  return job.name || `Job ${job.id.slice(0, ID_SHOWN)}`;
}
