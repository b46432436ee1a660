// Tiles of the wall: at most 200 elements, used again for other images as the wall moves.
import { images as imagesApi } from '../api';
import { count } from '../format';
import { IMAGE_WORDS } from '../states';
import { reducedMotion } from '../theme.svelte';
import { seenFrom, type Grid } from './grid';
import type { ImageMap } from './image-map';
import type { Loader } from './loader';
import { edgeFor, stageFor } from './stages';

/** Tiles are placed from every so many rows on, because browsers round very large positions. */
const ROWS_FROM_BASE = 4096;
/** A tile has to stay in view for this long before its picture is asked for. */
const SETTLED_MS = 70;

interface Tile {
  element: HTMLAnchorElement;
  index: number;
  since: number;
  /** Picture that is shown, and one that was asked for. */
  shown: string;
  asked: string;
  /** A picture that the farm does not have. */
  gone: string;
  code: number;
}

interface TileOptions {
  job: string;
  map: ImageMap;
  loader: Loader;
  sizes: () => ReadonlyMap<string, number>;
  /** Grows when images are retried, after which their pictures may be others. */
  generation: () => number;
  href: (index: number) => string;
}

export class Tiles {
  #board = document.createElement('div');
  #tiles: Tile[] = [];
  #cursor = -1;
  #base = 0;
  #grid: Grid | null = null;
  #edge = 64;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #instant = reducedMotion();

  constructor(layer: HTMLElement, private readonly options: TileOptions) {
    this.#board.className = 'board';
    layer.append(this.#board);
  }

  layOut(grid: Grid): void {
    this.#grid = grid;
    this.#edge = edgeFor((grid.cell - grid.gap) * Math.min(2, devicePixelRatio || 1));
    const wanted = Math.min(grid.images, grid.columns * grid.seen);
    while (this.#tiles.length > wanted) this.#remove(this.#tiles.pop()!);
    while (this.#tiles.length < wanted) this.#tiles.push(this.#make());
    for (const tile of this.#tiles) {
      this.#forget(tile);
      tile.element.style.width = tile.element.style.height = `${grid.cell - grid.gap}px`;
    }
  }

  /** Puts the tiles where they are seen from `top` on. */
  render(top: number, cursor: number): void {
    const grid = this.#grid;
    if (!grid) return;
    const { from, to } = seenFrom(grid, top);
    const now = performance.now();
    const slots = this.#tiles.length;
    const base = Math.floor(from / grid.columns / ROWS_FROM_BASE) * ROWS_FROM_BASE;
    // Only the board moves with each frame; a tile moves when it shows another image.
    this.#board.style.transform = `translateY(${Math.round(base * grid.cell - top)}px)`;
    const replaced = base !== this.#base;
    this.#base = base;
    for (let index = from; index < from + slots; index++) {
      const tile = this.#tiles[index % slots];
      const outside = index >= to;
      if (tile.element.hidden !== outside) tile.element.hidden = outside;
      if (outside) {
        if (tile.index >= 0) this.#forget(tile);
        continue;
      }
      if (tile.index !== index) this.#assign(tile, index, now);
      else if (!replaced) continue;
      const x = (index % grid.columns) * grid.cell;
      const y = (Math.floor(index / grid.columns) - base) * grid.cell;
      tile.element.style.transform = `translate(${x}px, ${y}px)`;
      tile.element.ariaSelected = String(index === cursor);
    }
    if (cursor !== this.#cursor) this.#select(cursor);
    this.#soon();
  }

  #select(cursor: number): void {
    for (const index of [this.#cursor, cursor]) {
      const tile = this.#tiles[index % Math.max(1, this.#tiles.length)];
      if (tile?.index === index) tile.element.ariaSelected = String(index === cursor);
    }
    this.#cursor = cursor;
  }

  /** The element that shows an image. */
  idOf(index: number): string | null {
    const tile = this.#tiles[index % Math.max(1, this.#tiles.length)];
    return tile?.index === index ? tile.element.id : null;
  }

  /** States have changed. */
  changed(): void {
    for (const tile of this.#tiles) {
      if (tile.index >= 0 && tile.code !== this.options.map.codes[tile.index]) this.#describe(tile);
    }
    this.#soon();
  }

  close(): void {
    clearTimeout(this.#timer);
    for (const tile of this.#tiles) this.#remove(tile);
    this.#tiles = [];
    this.#board.remove();
  }

  #make(): Tile {
    const element = document.createElement('a');
    element.className = 'tile';
    element.id = `tile-${this.#tiles.length}`;
    element.setAttribute('role', 'option');
    element.tabIndex = -1;
    element.draggable = false;
    const glyph = document.createElement('span');
    glyph.className = 'glyph';
    element.append(glyph);
    this.#board.append(element);
    return { element, index: -1, since: 0, shown: '', asked: '', gone: '', code: -1 };
  }

  #remove(tile: Tile): void {
    this.#forget(tile);
    tile.element.remove();
  }

  #forget(tile: Tile): void {
    if (tile.asked !== '') this.options.loader.drop(tile.asked);
    for (const image of tile.element.querySelectorAll('img')) image.remove();
    tile.index = -1;
    tile.shown = tile.asked = tile.gone = '';
    tile.code = -1;
    delete tile.element.dataset.stage;
    delete tile.element.dataset.gone;
  }

  #assign(tile: Tile, index: number, now: number): void {
    this.#forget(tile);
    tile.index = index;
    tile.since = now;
    tile.element.href = this.options.href(index);
    tile.element.dataset.index = String(index);
    tile.element.ariaSetSize = String(this.options.map.images);
    tile.element.ariaPosInSet = String(index + 1);
    this.#describe(tile);
    // A picture that is there already shows at once.
    const wish = this.#wish(tile);
    const blob = wish && this.options.loader.kept(wish.url);
    if (wish && blob) this.#show(tile, wish.url, wish.stage, blob, true);
  }

  #describe(tile: Tile): void {
    const { map } = this.options;
    tile.code = map.codes[tile.index];
    const state = map.state(tile.index);
    tile.element.dataset.state = state;
    const stage = state === 'dispatched' || state === 'dead' ? ` in ${map.stages[map.position(tile.index)] ?? 'a stage'}` : '';
    tile.element.ariaLabel = `Image ${count(tile.index)}: ${IMAGE_WORDS[state]}${stage}${tile.gone === '' ? '' : ', its picture is gone'}`;
  }

  #wish(tile: Tile): { url: string; stage: string } | null {
    const { job, map, sizes, generation } = this.options;
    const stage = stageFor(map, tile.index, this.#edge, sizes());
    if (stage === null) return null;
    return { url: imagesApi.picture(job, tile.index, { stage, max_edge: this.#edge, version: generation() }), stage };
  }

  #soon(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.#ask();
    }, SETTLED_MS);
  }

  #ask(): void {
    const now = performance.now();
    let unsettled = false;
    // The loader takes the last wish first, so the top of the wall is asked for last.
    const order = this.#tiles.filter((tile) => tile.index >= 0).sort((a, b) => b.index - a.index);
    for (const tile of order) {
      if (now - tile.since < SETTLED_MS) {
        unsettled = true;
        continue;
      }
      const wish = this.#wish(tile);
      if (!wish || [tile.shown, tile.asked, tile.gone].includes(wish.url)) continue;
      if (tile.asked !== '') this.options.loader.drop(tile.asked);
      const index = tile.index;
      tile.asked = wish.url;
      this.options.loader.want(
        wish.url,
        (blob) => {
          if (tile.index === index && tile.asked === wish.url) this.#show(tile, wish.url, wish.stage, blob, false);
        },
        (gone) => {
          if (tile.index !== index || tile.asked !== wish.url) return;
          tile.asked = '';
          if (gone) this.#gone(tile, wish.url);
        },
      );
    }
    if (unsettled) this.#soon();
  }

  /** Says that a picture is not there any more. */
  #gone(tile: Tile, url: string): void {
    tile.gone = url;
    tile.element.dataset.gone = '';
    this.#describe(tile);
  }

  /** Shows a picture above the one before, which goes once the new one covers it. */
  #show(tile: Tile, url: string, stage: string, blob: string, atOnce: boolean): void {
    const before = tile.element.querySelectorAll('img');
    const image = new Image();
    image.alt = '';
    image.decoding = 'async';
    image.draggable = false;
    image.src = blob;
    tile.shown = url;
    tile.gone = '';
    delete tile.element.dataset.gone;
    if (tile.asked === url) tile.asked = '';
    tile.element.dataset.stage = stage;
    const clear = (): void => before.forEach((one) => one.remove());
    if (atOnce || this.#instant) {
      tile.element.append(image);
      clear();
      return;
    }
    image.className = 'arriving';
    image.addEventListener('animationend', () => {
      image.className = '';
      clear();
    }, { once: true });
    image.decode().catch(() => undefined).finally(() => {
      if (tile.shown === url) tile.element.append(image);
    });
  }
}
