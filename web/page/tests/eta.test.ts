import { expect, test } from 'vitest';
import { secondsLeft } from '../src/lib/eta';
import type { StageProgress } from '../src/lib/types';

const stage = (done: number, total: number, images_per_second: number, stopped = 0): StageProgress =>
  ({ stage: 'base', done, dispatched: 0, total, images_per_second, stopped });

test("the farm's own forecast comes first", () => {
  expect(secondsLeft({ eta_seconds: 5, stages: [stage(0, 10, 1)] })).toBe(5);
});

test('without one, the slowest stage that has work left decides', () => {
  expect(secondsLeft({ eta_seconds: null, stages: [stage(10, 10, 0), stage(4, 10, 2), stage(0, 10, 0.5)] })).toBe(20);
});

test('images that stopped are not waited for', () => {
  expect(secondsLeft({ eta_seconds: null, stages: [stage(4, 10, 2, 4)] })).toBe(1);
});

test('nothing is said while a stage has no rate, or nothing is left', () => {
  expect(secondsLeft({ eta_seconds: null, stages: [stage(4, 10, 2), stage(0, 10, 0)] })).toBeNull();
  expect(secondsLeft({ eta_seconds: null, stages: [stage(10, 10, 2)] })).toBeNull();
});
