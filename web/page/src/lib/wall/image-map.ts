// The states of a job's images: one byte each, so that a million of them are one megabyte.
// A byte has the form of the API's codes: the state + 8 × the position of the stage.
import { IMAGE_STATES } from '../states';
import type { ImageMapAnswer, ImageState } from '../types';
import { toNumber } from '../u64';

/** A part of the map that an answer has changed: first index, and the index after the last. */
export interface Span {
  from: number;
  to: number;
}

export class ImageMap {
  readonly codes: Uint8Array;
  readonly counts = new Float64Array(8);
  stages: string[] = [];
  version: number | string = 0;
  /** Up to this index the map is known. */
  known = 0;

  constructor(readonly images: number) {
    this.codes = new Uint8Array(images);
    this.counts[0] = images;
  }

  state(index: number): ImageState {
    return IMAGE_STATES[this.codes[index] & 7] ?? 'unknown';
  }

  /** Position of the stage in which the image is; its earlier stages have passed. */
  position(index: number): number {
    return this.codes[index] >> 3;
  }

  /** The number of stages that an image has passed. */
  passed(index: number): number {
    const state = this.codes[index] & 7;
    if (state === 4) return this.stages.length;
    return state < 2 ? 0 : this.position(index);
  }

  /** Takes an answer over. Returns the parts that are different now. */
  apply(answer: ImageMapAnswer): Span[] {
    this.stages = answer.stages;
    const changed: Span[] = [];
    let at = toNumber(answer.first_index);
    for (let run = 0; run < answer.codes.length; run++) {
      if (answer.skips && answer.skips.length > 0) at += toNumber(answer.skips[run]);
      const end = Math.min(this.images, at + toNumber(answer.lengths[run]));
      this.#fill(at, end, answer.codes[run] & 0xff, changed);
      at = end;
    }
    if (answer.whole) {
      const next = toNumber(answer.next_index);
      this.known = Math.max(this.known, next > 0 ? next : this.images);
    }
    return changed;
  }

  /** The next image in this state after an index, from the beginning again after the last one. */
  next(state: ImageState, after: number): number | null {
    const wanted = IMAGE_STATES.indexOf(state);
    for (let step = 1; step <= this.images; step++) {
      const index = (after + step) % this.images;
      if ((this.codes[index] & 7) === wanted) return index;
    }
    return null;
  }

  count(state: ImageState): number {
    return this.counts[IMAGE_STATES.indexOf(state)];
  }

  #fill(from: number, to: number, code: number, changed: Span[]): void {
    let different = false;
    for (let index = from; index < to; index++) {
      const before = this.codes[index];
      if (before === code) continue;
      different = true;
      this.counts[before & 7] -= 1;
      this.codes[index] = code;
    }
    if (!different) return;
    // Counted once per run instead of once per image.
    let total = 0;
    for (let state = 0; state < 8; state++) total += this.counts[state];
    this.counts[code & 7] += this.images - total;
    const last = changed[changed.length - 1];
    if (last && last.to === from) last.to = to;
    else changed.push({ from, to });
  }
}
