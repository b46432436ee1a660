// Sheets of thumbnails, for zooms at which images are too small to load one by one.
// A sheet is one row of 256 tiles, so that a row of the wall is drawn in one or two pieces.
import { send, sheetPath } from '../api';
import { isAborted, retryMs } from '../problem';
import type { Sheet } from '../types';

export const PER_SHEET = 256;
const AT_ONCE = 3;
const MOST_KEPT = 96;
const AGAIN_MS = 2000;

interface Kept {
  bitmap: ImageBitmap;
  /** For each tile whether it has a picture. */
  filled: Uint8Array;
  /** Newer pictures exist, or some did not come in time. */
  stale: boolean;
  loadedAt: number;
}

export class Sheets {
  #kept = new Map<number, Kept>();
  #running = new Map<number, AbortController>();
  #wanted: number[] = [];
  /** Those that the farm refused. Asking again does not help until images of them change. */
  #refused = new Set<number>();
  #failedUntil = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly job: string,
    readonly tile: number,
    private readonly images: number,
    private readonly drawn: () => void,
    private readonly failed: (error: unknown) => void,
  ) {}

  get(sheet: number): { bitmap: ImageBitmap; filled: Uint8Array } | undefined {
    return this.#kept.get(sheet);
  }

  /** Images of this range have newer pictures. */
  changed(from: number, to: number): void {
    for (let sheet = Math.floor(from / PER_SHEET); sheet <= Math.floor((to - 1) / PER_SHEET); sheet++) {
      const kept = this.#kept.get(sheet);
      if (kept) kept.stale = true;
      this.#refused.delete(sheet);
    }
  }

  /** The sheets that are seen, in the order in which they are wanted. Others are given up. */
  want(sheets: number[]): void {
    const seen = new Set(sheets);
    for (const [sheet, abort] of this.#running) {
      if (!seen.has(sheet)) abort.abort();
    }
    this.#wanted = sheets;
    this.#next();
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#wanted = [];
    for (const abort of this.#running.values()) abort.abort();
    for (const kept of this.#kept.values()) kept.bitmap.close();
    this.#kept.clear();
  }

  #next(): void {
    const now = Date.now();
    if (this.#wanted.length === 0) return;
    if (now < this.#failedUntil) return this.#later(this.#failedUntil - now);
    let later = false;
    for (const sheet of this.#wanted) {
      if (this.#running.size >= AT_ONCE) return;
      const kept = this.#kept.get(sheet);
      if (this.#running.has(sheet) || this.#refused.has(sheet) || (kept && !kept.stale)) continue;
      if (kept && now - kept.loadedAt < AGAIN_MS) later = true;
      else void this.#load(sheet);
    }
    if (later) this.#later(AGAIN_MS);
  }

  #later(wait: number): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.#next();
    }, wait);
  }

  async #load(sheet: number): Promise<void> {
    const abort = new AbortController();
    this.#running.set(sheet, abort);
    try {
      const first = sheet * PER_SHEET;
      const count = Math.min(PER_SHEET, this.images - first);
      const path = sheetPath(this.job, { first_index: first, count, tile: this.tile, columns: count });
      const answer = await send('GET', path, { signal: abort.signal, headers: { Accept: 'image/png' } });
      const told = JSON.parse(answer.headers.get('Darkroom-Sheet') ?? '{}') as Partial<Sheet>;
      const bitmap = await createImageBitmap(await answer.blob());
      if (abort.signal.aborted) return bitmap.close();
      this.#keep(sheet, {
        bitmap,
        filled: filledIn(bitmap, count),
        stale: (told.tiles?.later ?? 0) > 0,
        loadedAt: Date.now(),
      });
      this.failed(null);
      this.drawn();
    } catch (error) {
      if (isAborted(error) || abort.signal.aborted) return;
      const wait = retryMs(error, AGAIN_MS);
      if (wait !== null) this.#failedUntil = Date.now() + wait;
      else {
        this.#refused.add(sheet);
        this.failed(error);
      }
    } finally {
      this.#running.delete(sheet);
      this.#next();
    }
  }

  #keep(sheet: number, kept: Kept): void {
    this.#kept.get(sheet)?.bitmap.close();
    this.#kept.delete(sheet);
    this.#kept.set(sheet, kept);
    for (const [old, its] of this.#kept) {
      if (this.#kept.size <= MOST_KEPT) return;
      if (this.#wanted.includes(old)) continue;
      its.bitmap.close();
      this.#kept.delete(old);
    }
  }
}

/** Which tiles have a picture: those without one are transparent, also in their middle. */
function filledIn(bitmap: ImageBitmap, count: number): Uint8Array {
  const canvas = document.createElement('canvas');
  canvas.width = count;
  canvas.height = 1;
  const context = canvas.getContext('2d', { willReadFrequently: true })!;
  context.imageSmoothingEnabled = false;
  context.drawImage(bitmap, 0, 0, count, 1);
  const pixels = context.getImageData(0, 0, count, 1).data;
  return Uint8Array.from({ length: count }, (_, at) => Number(pixels[4 * at + 3] > 0));
}
