// Where which image is on the wall.

export const ZOOMS = [16, 32, 64, 128, 256] as const;
export type Zoom = (typeof ZOOMS)[number];

/** Most tiles in the document. */
export const MOST_TILES = 200;

/** From this zoom on, each image is a tile of its own; below, sheets are drawn on a canvas. */
export const TILES_FROM = 64;

export interface Grid {
  /** Edge of a cell with its gap. */
  cell: number;
  gap: number;
  columns: number;
  /** Rows of the whole wall. */
  rows: number;
  /** Rows that can be seen at once, in part or whole. */
  seen: number;
  images: number;
}

/** Lays out the wall. Cells grow beyond the zoom where more than `MOST_TILES` would be seen. */
export function layOut(images: number, zoom: Zoom, width: number, height: number): Grid {
  const gap = zoom < TILES_FROM ? 0 : 4;
  let cell = zoom + gap;
  const columnsOf = (size: number): number => Math.max(1, Math.floor((width + gap) / size));
  const seenOf = (size: number): number => Math.ceil(height / size) + 1;
  if (zoom >= TILES_FROM) {
    while (columnsOf(cell) * seenOf(cell) > MOST_TILES) cell += 2;
  }
  const columns = columnsOf(cell);
  if (zoom >= TILES_FROM && images > columns) {
    // Tiles fill the width; the last step above keeps their number within the limit.
    cell = Math.max(cell, Math.floor((width + gap) / columns));
  }
  return { cell, gap, columns, rows: Math.ceil(images / columns), seen: seenOf(cell), images };
}

export function height(grid: Grid): number {
  return Math.max(0, grid.rows * grid.cell - grid.gap);
}

/** Top of the row in which an image is. */
export function topOf(grid: Grid, index: number): number {
  return Math.floor(index / grid.columns) * grid.cell;
}

/** The image at a place; `null` if there is none. */
export function indexAt(grid: Grid, x: number, y: number): number | null {
  const column = Math.floor(x / grid.cell);
  const index = Math.floor(y / grid.cell) * grid.columns + column;
  return x < 0 || y < 0 || column >= grid.columns || index >= grid.images ? null : index;
}

/** The images of the rows that are seen: first index, and the index after the last. */
export function seenFrom(grid: Grid, top: number): { from: number; to: number } {
  const row = Math.floor(top / grid.cell);
  const from = row * grid.columns;
  return { from, to: Math.min(grid.images, from + grid.seen * grid.columns) };
}

/** Where a key moves from an image; `null` if it is no key of the wall. */
export function keyMove(grid: Grid, index: number, key: string): number | null {
  const last = grid.images - 1;
  const page = Math.max(1, grid.seen - 2) * grid.columns;
  const moves: Record<string, number> = {
    ArrowLeft: index - 1,
    ArrowRight: index + 1,
    ArrowUp: index - grid.columns,
    ArrowDown: index + grid.columns,
    PageUp: index - page,
    PageDown: index + page,
    Home: 0,
    End: last,
  };
  const to = moves[key];
  if (to === undefined) return null;
  if ((key === 'ArrowUp' && to < 0) || (key === 'ArrowDown' && to > last)) return index;
  return Math.min(last, Math.max(0, to));
}
