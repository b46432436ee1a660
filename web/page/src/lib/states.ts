// States in words, and the numbers that the map of images has for them.
import type { ImageState, JobState } from './types';

/** The number of an image's state on the wire is its position here. */
export const IMAGE_STATES: readonly ImageState[] = ['unknown', 'waiting', 'ready', 'dispatched', 'done', 'dead', 'cancelled'];

export const IMAGE_WORDS: Record<ImageState, string> = {
  unknown: 'unknown',
  waiting: 'waiting for its text',
  ready: 'ready',
  dispatched: 'running',
  done: 'done',
  dead: 'failed',
  cancelled: 'cancelled',
};

export const JOB_WORDS: Record<JobState, string> = {
  unknown: 'unknown',
  receiving: 'arriving',
  active: 'active',
  paused: 'paused',
  done: 'done',
  failed: 'failed',
  cancelled: 'cancelled',
};

/** The states by which the farm lists jobs. Those whose prompts still arrive it does not. */
export const JOB_STATES: readonly JobState[] = ['active', 'paused', 'done', 'failed', 'cancelled'];

/** What a command to jobs is called, and to which states it applies. */
export type JobCommand = 'pause' | 'resume' | 'cancel' | 'retry' | 'delete';

export const APPLIES_TO: Record<JobCommand, readonly JobState[]> = {
  pause: ['active'],
  resume: ['paused'],
  cancel: ['receiving', 'active', 'paused'],
  retry: ['failed', 'cancelled'],
  delete: ['done', 'failed', 'cancelled'],
};

/** "paused", after the command was carried out. */
export const DONE_WORDS: Record<JobCommand, string> = {
  pause: 'paused',
  resume: 'resumed',
  cancel: 'cancelled',
  retry: 'set to run again',
  delete: 'deleted',
};
