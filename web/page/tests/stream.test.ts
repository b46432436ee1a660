import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { FarmEvent, Job } from '../src/lib/types';

interface Tab {
  event(event: FarmEvent): void;
  snapshot(): { jobs: Job[]; cursor: string };
}
const shared: { tab: Tab; caller: string }[] = [];
vi.mock('../src/lib/session.svelte', () => ({ session: {} }));
vi.mock('../src/lib/stream/leader', () => ({
  canShare: () => true,
  Share: class {
    constructor(caller: string, tab: Tab) {
      shared.push({ tab, caller });
    }
    close(): void {}
  },
}));

const { farm } = await import('../src/lib/stream/farm.svelte');
const { Connection } = await import('../src/lib/stream/connection');

const job = (id: string, version: number, state = 'active'): Job => ({ id, version, state }) as Job;
const event = (jobs: Job[], parts: Partial<FarmEvent> = {}): FarmEvent => ({ jobs, cursor: `c${jobs[0]?.version ?? 0}`, reset: false, caught_up: false, ...parts });

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal('document', { removeEventListener: () => {} });
});
afterEach(() => {
  farm.stop();
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

describe("the farm's state", () => {
  const start = (): Tab => {
    farm.start('studio/k1');
    return shared.at(-1)!.tab;
  };
  it('names its caller, whose tabs alone share the stream', () => {
    start();
    expect(shared.at(-1)!.caller).toBe('studio/k1');
  });
  it('stays paused when a job is put or forgotten', () => {
    const tab = start();
    tab.event(event([job('a', 1), job('b', 1)]));
    vi.runAllTimers();
    farm.pause();
    tab.event(event([job('a', 2)]));
    farm.put(job('c', 1));
    farm.forget('b');
    expect([farm.paused, farm.waiting]).toEqual([true, 1]);
    expect([farm.job('a')?.version, farm.job('b'), farm.job('c')?.version]).toEqual([1, undefined, 1]);
    farm.resume();
    expect([farm.job('a')?.version, farm.job('b'), farm.waiting]).toEqual([2, undefined, 0]);
  });
  it('waits with what has yet to be shown when it is paused', () => {
    const tab = start();
    tab.event(event([job('a', 1)]));
    farm.pause();
    vi.runAllTimers();
    expect([farm.job('a'), farm.waiting]).toEqual([undefined, 1]);
  });
  it('keeps a job that was put through a reset that waits', () => {
    const tab = start();
    farm.pause();
    tab.event(event([job('a', 1)], { reset: true }));
    farm.put(job('c', 5));
    farm.resume();
    expect([farm.job('a')?.version, farm.job('c')?.version]).toEqual([1, 5]);
  });
  it('hands on all up to its cursor, also what it has yet to show', () => {
    const tab = start();
    tab.event(event([job('a', 1), job('b', 1)]));
    vi.runAllTimers();
    tab.event(event([job('a', 2)], { deleted_jobs: ['b'] }));
    const { jobs, cursor } = tab.snapshot();
    expect([jobs.map((one) => [one.id, one.version]), cursor]).toEqual([[['a', 2]], 'c2']);
  });
  it('takes no older account of a job for a newer one', () => {
    const tab = start();
    farm.put(job('a', 3));
    tab.event(event([job('a', 2)]));
    vi.runAllTimers();
    expect(farm.job('a')?.version).toBe(3);
  });
  it('leaves nothing behind when it stops, and calls nobody afterwards', () => {
    const tab = start();
    const told = vi.fn();
    const end = farm.listen(told);
    tab.event(event([job('a', 1)]));
    farm.stop();
    vi.runAllTimers();
    farm.put(job('b', 1));
    expect([told.mock.calls.length, farm.job('a'), farm.job('b')]).toEqual([0, undefined, undefined]);
    end();
  });
});

describe('a stream', () => {
  class Source {
    static made: Source[] = [];
    static readonly OPEN = 1;
    readyState = 0;
    onopen = (): void => {};
    onerror = (): void => {};
    closed = false;
    #heard = new Map<string, (message: unknown) => void>();
    constructor(readonly url: string) {
      Source.made.push(this);
    }
    addEventListener(name: string, handler: (message: unknown) => void): void {
      this.#heard.set(name, handler);
    }
    say(name: string, data: unknown = {}, lastEventId = ''): void {
      this.#heard.get(name)?.({ data: JSON.stringify(data), lastEventId });
    }
    close(): void {
      this.closed = true;
    }
  }
  const states: boolean[] = [];
  const open = (): InstanceType<typeof Connection> => new Connection('', { event: () => {}, state: (is) => states.push(is), mayRetry: async () => true });

  beforeEach(() => {
    Source.made = [];
    states.length = 0;
    vi.stubGlobal('EventSource', Source);
    vi.stubGlobal('addEventListener', () => {});
    vi.stubGlobal('removeEventListener', () => {});
  });

  it('stays open as long as the farm beats', async () => {
    const connection = open();
    Source.made[0].onopen();
    for (let beat = 0; beat < 20; beat++) {
      await vi.advanceTimersByTimeAsync(15_000);
      Source.made[0].say('beat');
    }
    expect([Source.made.length, states]).toEqual([1, [true]]);
    connection.close();
  });
  it('is opened anew after 45 seconds of silence, from where it was', async () => {
    const connection = open();
    Source.made[0].onopen();
    Source.made[0].say('change', event([job('a', 1)]), 'seen');
    await vi.advanceTimersByTimeAsync(44_000);
    expect(Source.made[0].closed).toBe(false);
    await vi.advanceTimersByTimeAsync(3000);
    expect([Source.made[0].closed, states]).toEqual([true, [true, false]]);
    expect(Source.made[1].url).toContain('cursor=seen');
    connection.close();
  });
  it('is not opened anew after it was closed', async () => {
    const connection = open();
    Source.made[0].onerror();
    connection.close();
    await vi.advanceTimersByTimeAsync(120_000);
    expect(Source.made.length).toBe(1);
  });
});
