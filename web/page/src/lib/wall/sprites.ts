// Draws the part of the wall that is seen, from sheets, where images are too small to be tiles.
import { atlas, palette } from './glyphs';
import { seenFrom, type Grid } from './grid';
import type { ImageMap } from './image-map';
import { PER_SHEET, Sheets } from './sheets';

export class Sprites {
  #glyphs: HTMLCanvasElement | null = null;
  #ground = '';
  #scale = 1;
  #context: CanvasRenderingContext2D;

  constructor(private readonly canvas: HTMLCanvasElement, private readonly map: ImageMap, readonly sheets: Sheets) {
    this.#context = canvas.getContext('2d', { alpha: false })!;
  }

  resize(grid: Grid, width: number, height: number): void {
    this.#scale = Math.min(2, devicePixelRatio || 1);
    this.canvas.width = Math.round(width * this.#scale);
    this.canvas.height = Math.round(height * this.#scale);
    this.recolour(grid);
  }

  recolour(grid: Grid): void {
    const colours = palette(this.canvas.parentElement!);
    this.#ground = colours.ground;
    this.#glyphs = atlas(Math.round(grid.cell * this.#scale), colours);
  }

  /** Draws what is seen from `top` on, and asks for the sheets that are missing. */
  draw(grid: Grid, top: number): void {
    const context = this.#context;
    context.fillStyle = this.#ground;
    context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    context.imageSmoothingEnabled = false;
    const { from, to } = seenFrom(grid, top);
    const firstRow = Math.floor(from / grid.columns);
    for (let start = from; start < to; start += grid.columns) {
      const y = (start / grid.columns) * grid.cell - top;
      this.#row(grid, start, Math.min(to, start + grid.columns), y);
    }
    const sheets: number[] = [];
    for (let sheet = Math.floor(from / PER_SHEET); sheet * PER_SHEET < to; sheet++) sheets.push(sheet);
    // The middle of what is seen first.
    const middle = Math.floor((firstRow + grid.seen / 2) * grid.columns / PER_SHEET);
    this.sheets.want(sheets.sort((a, b) => Math.abs(a - middle) - Math.abs(b - middle)));
  }

  #row(grid: Grid, from: number, to: number, y: number): void {
    const scale = this.#scale;
    const cell = grid.cell * scale;
    const yAt = Math.round(y * scale);
    for (let at = from; at < to;) {
      const number = Math.floor(at / PER_SHEET);
      const end = Math.min(to, (number + 1) * PER_SHEET);
      const sheet = this.sheets.get(number);
      const offset = at - number * PER_SHEET;
      if (sheet) {
        const tile = this.sheets.tile;
        this.#context.drawImage(sheet.bitmap, offset * tile, 0, (end - at) * tile, tile, (at - from) * cell, yAt, (end - at) * cell, cell);
      }
      this.#glyphsOver(at, end, from, cell, yAt, sheet?.filled, offset);
      at = end;
    }
  }

  #glyphsOver(at: number, end: number, from: number, cell: number, y: number, filled: Uint8Array | undefined, offset: number): void {
    const glyphs = this.#glyphs!;
    for (let index = at; index < end; index++) {
      const state = this.map.codes[index] & 7;
      const pictured = filled !== undefined && filled[offset + index - at] === 1;
      // A picture says enough by itself, except that a failed image keeps its mark.
      if (state === 0 || (pictured && state !== 5)) continue;
      this.#context.drawImage(glyphs, state * cell, 0, cell, cell, (index - from) * cell, y, cell, cell);
    }
  }
}
