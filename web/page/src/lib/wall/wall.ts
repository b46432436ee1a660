// The wall of a job's pictures: scrolls, zooms, and moves a cursor by keys.
import { count } from '../format';
import { IMAGE_WORDS } from '../states';
import { height, indexAt, keyMove, layOut, TILES_FROM, topOf, type Grid, type Zoom } from './grid';
import type { ImageMap, Span } from './image-map';
import { Loader } from './loader';
import { ScrollMap } from './scroll';
import { Sheets } from './sheets';
import { Sprites } from './sprites';
import { Tiles } from './tiles';

const IDLE_MS = 160;

interface WallParts {
  scroller: HTMLElement;
  layer: HTMLElement;
  spacer: HTMLElement;
  canvas: HTMLCanvasElement;
  cursor: HTMLElement;
}

interface WallOptions {
  job: string;
  map: ImageMap;
  sizes: () => ReadonlyMap<string, number>;
  generation: () => number;
  href: (index: number) => string;
  zoom: Zoom;
  at: number;
  tallest: () => number;
  /** The cursor, or what is seen, has moved. */
  moved: (cursor: number, first: number, last: number) => void;
  /** Thumbnails were refused; `null`: some came. */
  failed: (error: unknown) => void;
}

export class Wall {
  cursor: number;
  #zoom: Zoom;
  #grid!: Grid;
  #scroll = new ScrollMap();
  #loader = new Loader();
  #tiles: Tiles | null = null;
  #sprites: Sprites | null = null;
  #frame = 0;
  #idle: ReturnType<typeof setTimeout> | undefined;
  #watch: ResizeObserver;
  #width = 0;

  constructor(private readonly parts: WallParts, private readonly options: WallOptions) {
    this.cursor = Math.min(options.at, Math.max(0, options.map.images - 1));
    this.#zoom = options.zoom;
    this.#rebuild(this.cursor);
    this.#watch = new ResizeObserver(() => {
      if (Math.abs(this.#parent() - this.#width) > 1) this.#rebuild(this.#firstSeen());
    });
    this.#watch.observe(parts.scroller.parentElement!);
    parts.scroller.addEventListener('scroll', this.#scrolled, { passive: true });
  }

  get zoom(): Zoom {
    return this.#zoom;
  }

  setZoom(zoom: Zoom): void {
    if (zoom === this.#zoom) return;
    const seen = this.#isSeen(this.cursor) ? this.cursor : this.#firstSeen();
    this.#zoom = zoom;
    this.#rebuild(seen);
    this.#reveal(seen);
  }

  /** Moves the cursor to an image, into view. */
  jump(index: number, place: 'near' | 'middle' = 'near'): void {
    this.cursor = Math.min(this.options.map.images - 1, Math.max(0, index));
    if (place === 'middle') this.#moveTo(topOf(this.#grid, this.cursor) - (this.#scroll.viewport - this.#grid.cell) / 2);
    else this.#reveal(this.cursor);
  }

  /** A key was pressed; whether it was one of the wall's. */
  key(key: string): boolean {
    const to = keyMove(this.#grid, this.cursor, key);
    if (to === null) return false;
    this.jump(to);
    return true;
  }

  /** The image under a point of the screen. */
  indexAtPoint(x: number, y: number): number | null {
    const box = this.parts.layer.getBoundingClientRect();
    return indexAt(this.#grid, x - box.left, y - box.top + this.#scroll.top);
  }

  changed(spans: Span[]): void {
    for (const { from, to } of spans) this.#sprites?.sheets.changed(from, to);
    this.#tiles?.changed();
    if (this.#sprites) this.#draw();
    else this.#describe();
  }

  recolour(): void {
    this.#sprites?.recolour(this.#grid);
    this.#draw();
  }

  close(): void {
    cancelAnimationFrame(this.#frame);
    clearTimeout(this.#idle);
    this.#watch.disconnect();
    this.parts.scroller.removeEventListener('scroll', this.#scrolled);
    this.#tiles?.close();
    this.#sprites?.sheets.close();
    this.#loader.forget();
  }

  #parent(): number {
    return this.parts.scroller.parentElement!.clientWidth;
  }

  #rebuild(keep: number): void {
    const { scroller, layer, spacer, canvas } = this.parts;
    const { map } = this.options;
    this.#width = this.#parent();
    const width = scroller.clientWidth;
    const tallest = Math.max(200, this.options.tallest());
    this.#grid = layOut(map.images, this.#zoom, width, tallest);
    const viewport = Math.min(tallest, height(this.#grid));
    scroller.style.height = `${viewport}px`;
    layer.style.height = `${viewport}px`;
    this.#scroll.resize(height(this.#grid), viewport, topOf(this.#grid, keep));
    spacer.style.height = `${this.#scroll.height - viewport}px`;
    if (this.#zoom >= TILES_FROM) {
      this.#sprites?.sheets.close();
      this.#sprites = null;
      this.#tiles ??= new Tiles(layer, { ...this.options, loader: this.#loader });
      this.#tiles.layOut(this.#grid);
    } else {
      this.#tiles?.close();
      this.#tiles = null;
      if (this.#sprites?.sheets.tile !== this.#zoom) {
        this.#sprites?.sheets.close();
        const sheets = new Sheets(this.options.job, this.#zoom, map.images, () => this.#soon(), this.options.failed);
        this.#sprites = new Sprites(canvas, map, sheets);
      }
      this.#sprites.resize(this.#grid, width, viewport);
    }
    canvas.hidden = this.#sprites === null;
    this.#place();
  }

  #firstSeen(): number {
    return Math.min(this.options.map.images - 1, Math.round(this.#scroll.top / this.#grid.cell) * this.#grid.columns);
  }

  #isSeen(index: number): boolean {
    const top = topOf(this.#grid, index);
    return top >= this.#scroll.top && top + this.#grid.cell <= this.#scroll.top + this.#scroll.viewport + this.#grid.gap;
  }

  #reveal(index: number): void {
    const top = topOf(this.#grid, index);
    const bottom = top + this.#grid.cell - this.#grid.gap;
    if (top < this.#scroll.top) this.#moveTo(top);
    else if (bottom > this.#scroll.top + this.#scroll.viewport) this.#moveTo(bottom - this.#scroll.viewport);
    else this.#draw();
  }

  #moveTo(top: number): void {
    this.#scroll.moveTo(top);
    this.#place();
  }

  /** Puts the scrollbar where the wall is, and draws. */
  #place(): void {
    this.parts.scroller.scrollTop = this.#scroll.settled();
    this.#draw();
  }

  #scrolled = (): void => {
    this.#soon();
    clearTimeout(this.#idle);
    this.#idle = setTimeout(() => {
      this.parts.scroller.scrollTop = this.#scroll.settled();
    }, IDLE_MS);
  };

  #soon(): void {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      const position = this.parts.scroller.scrollTop;
      this.#scroll.scrolled(position);
      if (this.#scroll.needsCorrection(position)) this.parts.scroller.scrollTop = this.#scroll.settled();
      this.#draw();
    });
  }

  #draw(): void {
    const top = this.#scroll.top;
    if (this.#tiles) this.#tiles.render(top, this.cursor);
    else this.#sprites?.draw(this.#grid, top);
    this.#describe();
    const first = Math.floor(top / this.#grid.cell) * this.#grid.columns;
    const rows = Math.ceil(this.#scroll.viewport / this.#grid.cell);
    this.options.moved(this.cursor, first, Math.min(this.options.map.images, first + rows * this.#grid.columns) - 1);
  }

  /** Tells screen readers which image the cursor is on, and shows it between sprites. */
  #describe(): void {
    const { cursor, scroller } = this.parts;
    const tile = this.#tiles?.idOf(this.cursor) ?? null;
    const size = this.#grid.cell - this.#grid.gap;
    const state = this.options.map.state(this.cursor);
    cursor.hidden = tile !== null;
    if (tile === null) {
      const y = topOf(this.#grid, this.cursor) - this.#scroll.top;
      cursor.style.width = cursor.style.height = `${size}px`;
      cursor.style.transform = `translate(${(this.cursor % this.#grid.columns) * this.#grid.cell}px, ${Math.round(y)}px)`;
      cursor.ariaLabel = `Image ${count(this.cursor)}: ${IMAGE_WORDS[state]}`;
      cursor.ariaPosInSet = String(this.cursor + 1);
      cursor.ariaSetSize = String(this.options.map.images);
    }
    const active = tile ?? cursor.id;
    if (scroller.getAttribute('aria-activedescendant') !== active) scroller.setAttribute('aria-activedescendant', active);
  }
}
