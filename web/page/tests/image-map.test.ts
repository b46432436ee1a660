import { describe, expect, it } from 'vitest';
import type { ImageMapAnswer } from '../src/lib/types';
import { ImageMap } from '../src/lib/wall/image-map';
import { edgeFor, stageFor } from '../src/lib/wall/stages';

const STAGES = ['base', 'sr256', 'sr1024'];
const answer = (parts: Partial<ImageMapAnswer>): ImageMapAnswer => ({ version: 1, images: 10, first_index: 0, whole: true, stages: STAGES, codes: [], lengths: [], ...parts });

describe('the map of images', () => {
  it('reads runs, and counts states', () => {
    const map = new ImageMap(10);
    const changed = map.apply(answer({ codes: [4, 3 + 8, 5 + 16], lengths: [5, 3, 2] }));
    expect(changed).toEqual([{ from: 0, to: 10 }]);
    expect([map.count('done'), map.count('dispatched'), map.count('dead'), map.count('unknown')]).toEqual([5, 3, 2, 0]);
    expect([map.state(4), map.state(5), map.position(5), map.state(9), map.position(9)]).toEqual(['done', 'dispatched', 1, 'dead', 2]);
    expect(map.known).toBe(10);
  });
  it('reads changes that skip what stays', () => {
    const map = new ImageMap(10);
    map.apply(answer({ codes: [2], lengths: [10] }));
    const changed = map.apply(answer({ whole: false, codes: [4, 5], lengths: [1, '2'], skips: [2, '3'] }));
    expect(changed).toEqual([{ from: 2, to: 3 }, { from: 6, to: 8 }]);
    expect([2, 3, 5, 6, 7, 8].map((index) => map.state(index))).toEqual(['done', 'ready', 'ready', 'dead', 'dead', 'ready']);
    expect(map.count('ready')).toBe(7);
  });
  it('takes several parts, and changes nothing that is told twice', () => {
    const map = new ImageMap(10);
    map.apply(answer({ codes: [4], lengths: [6], next_index: 6 }));
    expect(map.known).toBe(6);
    map.apply(answer({ first_index: 6, codes: [1], lengths: [4] }));
    expect(map.known).toBe(10);
    expect(map.apply(answer({ codes: [4, 1], lengths: [6, 4] }))).toEqual([]);
  });
  it('ignores what lies beyond the last image', () => {
    const map = new ImageMap(3);
    map.apply(answer({ codes: [4], lengths: [100] }));
    expect(map.count('done')).toBe(3);
  });
  it('finds the next image of a state, around the end', () => {
    const map = new ImageMap(10);
    map.apply(answer({ codes: [4, 5, 4, 5, 4], lengths: [1, 1, 3, 1, 4] }));
    expect(map.next('dead', 0)).toBe(1);
    expect(map.next('dead', 1)).toBe(5);
    expect(map.next('dead', 5)).toBe(1);
    expect(map.next('waiting', 0)).toBeNull();
  });
  it('holds a million images in a megabyte', () => {
    const map = new ImageMap(1_000_000);
    map.apply({ ...answer({ codes: [4], lengths: [1_000_000] }), images: 1_000_000 });
    expect(map.codes.byteLength).toBe(1_000_000);
    expect(map.count('done')).toBe(1_000_000);
  });
});

describe('the stage of a tile', () => {
  const sizes = new Map([['base', 64], ['sr256', 256], ['sr1024', 1024]]);
  const at = (code: number): ImageMap => {
    const map = new ImageMap(1);
    map.apply({ ...answer({ codes: [code], lengths: [1] }), images: 1 });
    return map;
  };
  it('is the first that is large enough for small tiles', () => {
    expect(stageFor(at(4), 0, 64, sizes)).toBe('base');
    expect(stageFor(at(4), 0, 16, sizes)).toBe('base');
  });
  it('is the latest for larger tiles, so that they sharpen', () => {
    expect(stageFor(at(2), 0, 256, sizes)).toBeNull();
    expect(stageFor(at(1), 0, 256, sizes)).toBeNull();
    expect(stageFor(at(3 + 8), 0, 256, sizes)).toBe('base');
    expect(stageFor(at(2 + 16), 0, 256, sizes)).toBe('sr256');
    expect(stageFor(at(4), 0, 256, sizes)).toBe('sr1024');
    expect(stageFor(at(4), 0, 64, new Map())).toBe('sr1024');
  });
  it('is asked for in a size that the farm makes', () => {
    expect([15, 16, 17, 64, 100, 300, 900].map(edgeFor)).toEqual([16, 16, 32, 64, 128, 512, 512]);
  });
});
