// Small strips of a job's first pictures, for lists. One loader for all of them.
import { ROOT, sheetPath } from './api';
import type { Job } from './types';
import { toNumber } from './u64';
import { Loader } from './wall/loader';

export const loader = new Loader();
const STEPS = 8;

/** The address of a job's strip. Its fragment changes when newer pictures are likely. */
export function stripUrl(job: Job, tiles: number, tile: number): string | null {
  const count = Math.min(tiles, toNumber(job.images));
  const stages = job.stages.filter((stage) => stage.stage !== 'encode');
  const done = stages.map((stage) => toNumber(stage.done));
  if (count === 0 || done.length === 0 || done[0] === 0 || job.pictures_removed_at) return null;
  const step = Math.max(1, toNumber(job.images) / STEPS);
  const progress = done.map((one) => (one <= count ? one : count + Math.floor(one / step)));
  const path = sheetPath(job.id, { first_index: 0, count, tile, columns: count });
  return `${ROOT}${path}#${progress.join('-')}`;
}
