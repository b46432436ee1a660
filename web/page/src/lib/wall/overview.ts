// The map of all images on a canvas: one pixel each, or larger where there is room for shapes.
import { atlas, packed, palette, type Palette } from './glyphs';
import type { ImageMap, Span } from './image-map';

/** Canvases higher than this are refused by some browsers; more images then share a pixel. */
const HIGHEST = 16_000;
const LARGEST_CELL = 14;
/** From this size of a cell on, shapes can be told apart. */
const SHAPES_FROM = 6;
/** Height that a map of larger cells may have. */
const COMFORTABLE = 150;
/** Which state a pixel shows that several images share: the one that matters most. */
const IMPORTANCE = [0, 1, 2, 4, 3, 6, 5, 0];

export class Overview {
  columns = 1;
  cell = 1;
  /** Images per cell. */
  share = 1;
  #colours: Palette;
  #atlas: HTMLCanvasElement | null = null;
  #packed: Uint32Array = new Uint32Array(8);

  constructor(private readonly canvas: HTMLCanvasElement, private readonly map: ImageMap) {
    this.#colours = palette(canvas.parentElement!);
  }

  get rows(): number {
    return Math.ceil(Math.ceil(this.map.images / this.share) / this.columns);
  }

  /** Fits the map to a width, and draws it. */
  resize(width: number): void {
    this.cell = 1;
    for (let cell = LARGEST_CELL; cell >= 1; cell--) {
      const rows = Math.ceil(this.map.images / Math.max(1, Math.floor(width / cell)));
      if (rows * cell <= COMFORTABLE) {
        this.cell = cell;
        break;
      }
    }
    this.columns = Math.max(1, Math.floor(width / this.cell));
    this.share = Math.max(1, Math.ceil(this.map.images / (this.columns * HIGHEST)));
    this.canvas.width = this.columns * this.cell;
    this.canvas.height = Math.max(1, this.rows * this.cell);
    this.canvas.style.width = `${this.canvas.width}px`;
    this.canvas.style.height = `${this.canvas.height}px`;
    this.recolour();
  }

  /** Reads the theme's colours again, and draws. */
  recolour(): void {
    this.#colours = palette(this.canvas.parentElement!);
    this.#packed = Uint32Array.from([...this.#colours.states, this.#colours.ground], packed);
    this.#atlas = this.cell >= SHAPES_FROM ? atlas(this.cell, this.#colours) : null;
    this.draw([{ from: 0, to: this.map.images }]);
  }

  /** Draws the parts that changed. */
  draw(spans: Span[]): void {
    const context = this.canvas.getContext('2d');
    if (!context || spans.length === 0) return;
    // Many small parts cost more one by one than what lies between them.
    const parts = spans.length > 64 ? [{ from: spans[0].from, to: spans[spans.length - 1].to }] : spans;
    for (const { from, to } of parts) {
      const first = Math.floor(Math.floor(from / this.share) / this.columns);
      const last = Math.floor(Math.floor((to - 1) / this.share) / this.columns);
      if (this.#atlas) this.#drawShapes(context, this.#atlas, first, last);
      else this.#drawPixels(context, first, last);
    }
  }

  indexAt(x: number, y: number): number | null {
    const column = Math.floor(x / this.cell);
    const index = (Math.floor(y / this.cell) * this.columns + column) * this.share;
    return column < 0 || column >= this.columns || y < 0 || index >= this.map.images ? null : index;
  }

  /** Where an image is: left and top of its cell. */
  placeOf(index: number): { x: number; y: number } {
    const at = Math.floor(index / this.share);
    return { x: (at % this.columns) * this.cell, y: Math.floor(at / this.columns) * this.cell };
  }

  #drawShapes(context: CanvasRenderingContext2D, glyphs: HTMLCanvasElement, first: number, last: number): void {
    const { cell, columns } = this;
    context.clearRect(0, first * cell, columns * cell, (last - first + 1) * cell);
    const end = Math.min(this.map.images, (last + 1) * columns);
    for (let index = first * columns; index < end; index++) {
      const state = this.map.codes[index] & 7;
      if (state === 0) continue;
      context.drawImage(glyphs, state * cell, 0, cell, cell, (index % columns) * cell, Math.floor(index / columns) * cell, cell, cell);
    }
  }

  #drawPixels(context: CanvasRenderingContext2D, first: number, last: number): void {
    const { cell, columns, share } = this;
    const width = columns * cell;
    const data = context.createImageData(width, (last - first + 1) * cell);
    const pixels = new Uint32Array(data.data.buffer);
    const end = Math.min(Math.ceil(this.map.images / share), (last + 1) * columns);
    for (let at = first * columns; at < end; at++) {
      const colour = this.#packed[share === 1 ? this.map.codes[at] & 7 : this.#shared(at)];
      if (cell === 1) {
        pixels[at - first * columns] = colour;
        continue;
      }
      const left = (at % columns) * cell;
      const top = (Math.floor(at / columns) - first) * cell;
      for (let row = top; row < top + cell; row++) pixels.fill(colour, row * width + left, row * width + left + cell);
    }
    context.putImageData(data, 0, first * cell);
  }

  #shared(at: number): number {
    let best = 0;
    const end = Math.min(this.map.images, (at + 1) * this.share);
    for (let index = at * this.share; index < end; index++) {
      const state = this.map.codes[index] & 7;
      if (IMPORTANCE[state] > IMPORTANCE[best]) best = state;
    }
    return best;
  }
}
