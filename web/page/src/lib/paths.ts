// Addresses of pages.
import type { U64 } from './u64';

export function jobPath(job: string): string {
  return `/jobs/${encodeURIComponent(job)}`;
}

export function imagePath(job: string, index: U64): string {
  return `${jobPath(job)}/images/${index}`;
}

/** A picture on one side of a comparison. No stage: the last one. */
type Side = [job: string, index: U64, stage?: string];

export function comparePath(left: Side, right: Side): string {
  const side = ([job, index, stage = '']: Side): string => encodeURIComponent(`${job}:${index}:${stage}`);
  return `/compare?a=${side(left)}&b=${side(right)}`;
}

export function reusePath(job: string, index?: U64): string {
  return `/submit?from=${encodeURIComponent(job)}${index === undefined ? '' : `&image=${index}`}`;
}
