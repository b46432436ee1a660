import { describe, expect, it } from 'vitest';
import { height, indexAt, keyMove, layOut, MOST_TILES, seenFrom, topOf, ZOOMS } from '../src/lib/wall/grid';
import { ScrollMap, TALLEST } from '../src/lib/wall/scroll';

const WALL = 20_000_000;
const VIEW = 800;

describe('scrolling', () => {
  it('is pixel by pixel where the wall fits a browser', () => {
    const scroll = new ScrollMap(100_000, VIEW);
    scroll.scrolled(1234);
    expect([scroll.top, scroll.container, scroll.height]).toEqual([1234, 1234, 100_000]);
  });
  it('moves a tall wall pixel by pixel for small movements', () => {
    const scroll = new ScrollMap(WALL, VIEW);
    expect(scroll.height).toBe(TALLEST);
    scroll.scrolled(100);
    expect(scroll.top).toBe(100);
    expect(scroll.container).toBe(20);
    const settled = scroll.settled();
    scroll.scrolled(settled);
    expect(scroll.top, 'a correction is no movement').toBe(100);
    scroll.scrolled(settled + 50);
    expect(scroll.top).toBe(150);
  });
  it('moves a tall wall in proportion when the scrollbar is dragged', () => {
    const scroll = new ScrollMap(WALL, VIEW);
    scroll.scrolled((TALLEST - VIEW) / 2);
    expect(Math.abs(scroll.top - scroll.most / 2)).toBeLessThan(1);
  });
  it('reaches both ends', () => {
    const scroll = new ScrollMap(WALL, VIEW);
    scroll.scrolled(TALLEST - VIEW);
    expect(scroll.top).toBe(scroll.most);
    scroll.scrolled(0);
    expect(scroll.top).toBe(0);
  });
  it('reaches every pixel by small steps, from any place', () => {
    const scroll = new ScrollMap(WALL, VIEW);
    scroll.moveTo(WALL);
    for (let step = 0; step < 100; step++) {
      const position = scroll.settled();
      scroll.scrolled(position - 100);
    }
    expect(scroll.top).toBe(scroll.most - 10_000);
  });
  it('asks for a correction before the container ends', () => {
    const scroll = new ScrollMap(WALL, VIEW);
    let position = 0;
    for (let step = 0; step < 10; step++) scroll.scrolled((position += 100));
    expect(scroll.needsCorrection(position)).toBe(true);
    scroll.settled();
    expect(scroll.needsCorrection(scroll.container)).toBe(false);
  });
  it('keeps to the wall when it becomes smaller', () => {
    const scroll = new ScrollMap(WALL, VIEW);
    scroll.moveTo(WALL);
    scroll.resize(1000, VIEW, scroll.top);
    expect(scroll.top).toBe(200);
  });
});

describe('the grid', () => {
  it('never shows more than 200 tiles', () => {
    for (const zoom of ZOOMS.filter((one) => one >= 64)) {
      for (const [width, tall] of [[320, 500], [1300, 700], [1900, 900], [3800, 1900]]) {
        const grid = layOut(1_000_000, zoom, width, tall);
        expect(grid.columns * grid.seen, `${zoom} in ${width} × ${tall}`).toBeLessThanOrEqual(MOST_TILES);
      }
    }
  });
  it('finds the image at a place, and the place of an image', () => {
    const grid = layOut(1000, 128, 1320, 700);
    expect([grid.columns, grid.cell]).toEqual([10, 132]);
    expect(topOf(grid, 25)).toBe(264);
    expect(indexAt(grid, 5 * 132 + 3, 264 + 10)).toBe(25);
    expect(indexAt(grid, 1320, 0)).toBeNull();
    expect(indexAt(grid, 0, 99 * 132 + 132)).toBeNull();
    expect(height(grid)).toBe(100 * 132 - 4);
  });
  it('knows what is seen', () => {
    const grid = layOut(1000, 128, 1320, 700);
    expect(seenFrom(grid, 264)).toEqual({ from: 20, to: 20 + 10 * grid.seen });
    expect(seenFrom(grid, 99 * 132).to).toBe(1000);
  });
  it('moves by keys, and stays inside', () => {
    const grid = layOut(25, 128, 1320, 700);
    expect(keyMove(grid, 0, 'ArrowLeft')).toBe(0);
    expect(keyMove(grid, 3, 'ArrowDown')).toBe(13);
    expect(keyMove(grid, 18, 'ArrowDown')).toBe(18);
    expect(keyMove(grid, 3, 'ArrowUp')).toBe(3);
    expect(keyMove(grid, 3, 'End')).toBe(24);
    expect(keyMove(grid, 3, 'PageDown')).toBe(24);
    expect(keyMove(grid, 3, 'a')).toBeNull();
  });
});
