// Which stage's picture a tile shows.
import type { ImageMap } from './image-map';

/** Sizes that the API scales pictures to. */
const EDGES = [16, 32, 64, 128, 256, 512];

/** The size to ask for, for a tile of so many pixels on the screen. */
export function edgeFor(pixels: number): number {
  return EDGES.find((edge) => edge >= pixels) ?? 512;
}

/**
 * The stage whose picture an image's tile shows; `null` if there is none yet. Small tiles need no
 * more than the first stage that is as large as they are; larger ones show the latest, so that
 * they sharpen.
 */
export function stageFor(map: ImageMap, index: number, edge: number, sizes: ReadonlyMap<string, number>): string | null {
  const passed = map.passed(index);
  if (passed === 0) return null;
  if (edge <= 64) {
    for (let at = 0; at < passed; at++) {
      const size = sizes.get(map.stages[at]);
      if (size !== undefined && size >= edge) return map.stages[at];
    }
  }
  return map.stages[passed - 1] ?? null;
}
