import { describe, expect, it } from 'vitest';
import { queryString } from '../src/lib/api';
import { requestAgain, verdict } from '../src/lib/again';
import { bytes, counted, rate, span } from '../src/lib/format';
import { fits, fromQuery, isEmpty } from '../src/lib/jobs-filter';
import { match } from '../src/lib/match';
import { everyPage, type Page } from '../src/lib/paged.svelte';
import { comparePath, imagePath, reusePath } from '../src/lib/paths';
import { Problem, retryMs } from '../src/lib/problem';
import { spread } from '../src/lib/spread';
import type { Image, Job, QueuePool } from '../src/lib/types';
import { whyPoolWaits, whyWaiting } from '../src/lib/waiting';

const job = (parts: Partial<Job>): Job => ({ id: 'j', name: '', state: 'active', cascade: 'demo', cascade_digest: 'd', priority: 'batch', tenant: 'studio', seed: 1, images: 1, images_done: 0, images_dead: 0, images_cancelled: 0, stages: [], width: 1024, height: 1024, settings: [], waiting_for: '', tasks_ahead: 0, created_at: 100, ...parts }) as Job;
const image = (parts: Partial<Image>): Image => ({ index: 3, prompt: 'a cat', negative: '', seed: '18446744073709551615', sha256: 'x', device_class: 'A', ...parts }) as Image;

describe('queries', () => {
  it('repeat lists, and write labels as KEY=VALUE', () => {
    expect(queryString({ state: ['done', 'failed'], label: { set: 'a b' }, name: '', page_size: 5, cancel: false })).toBe('?state=done&state=failed&label=set%3Da+b&page_size=5');
    expect(queryString({})).toBe('');
  });
});

describe('filters', () => {
  it('come from the address', () => {
    const filter = fromQuery(new URLSearchParams('state=done&label=a%3Db%3Dc&name=x&text=%20&from=2026-01-31'));
    expect(filter).toMatchObject({ state: ['done'], label: { a: 'b=c' }, name: 'x' });
    expect(filter.text).toBeUndefined();
    expect(filter.created_from).toMatch(/^2026-01-3/);
    expect(isEmpty(fromQuery(new URLSearchParams('zoom=5')))).toBe(true);
  });
  it('fit jobs that the stream tells', () => {
    expect(fits({ state: ['done'] }, job({}))).toBe(false);
    expect(fits({ label: { a: 'b' }, name: 'CAT' }, job({ name: 'Cats', labels: { a: 'b' } }))).toBe(true);
  });
});

describe('paths', () => {
  it('have parts', () => {
    expect(match('/jobs/:job/images/:index', '/jobs/a%20b/images/7')).toEqual({ job: 'a b', index: '7' });
    expect(match('/jobs/:job', '/jobs')).toBeNull();
    expect(match('', '/')).toEqual({});
    expect(match('/jobs/:job', '/jobs/%')).toBeNull();
  });
});

describe('words', () => {
  it('say spans, sizes and rates', () => {
    expect([0.25, 5.25, 59, 61, 7322, 90_000].map((seconds) => span(seconds))).toEqual(['250 ms', '5.3 s', '59 s', '1 min 1 s', '2 h 2 min', '1 d 1 h']);
    expect([bytes(10), bytes(1536), bytes('5368709120')]).toEqual(['10 B', '1.5 KiB', '5.0 GiB']);
    expect([rate(20), rate(0.5), rate(0.001)]).toEqual(['20/s', '30/min', '3.6/h']);
    expect([counted(1, 'job'), counted('2000', 'job')]).toEqual(['1 job', '2,000 jobs']);
  });
  it('say why something waits', () => {
    expect(whyWaiting(job({}))).toBeNull();
    expect(whyWaiting(job({ state: 'paused' }))?.actions).toContain('resume');
    expect(whyWaiting(job({ waiting_for: 'no worker serves stage sr1024 of cascade demo' }))).toMatchObject({ why: 'No worker serves stage sr1024 of cascade demo.', actions: ['workers', 'cancel'] });
    expect(whyWaiting(job({ waiting_for: 'waiting behind 5 tasks of other jobs in stage base', tasks_ahead: 5 }))?.advice).toContain('5 tasks');
    const pool = { stage: 'base', cascade: 'demo', ready: 5, dispatched: 0, leased: 0, workers: 0, images_per_second: 0 } as QueuePool;
    expect(whyPoolWaits(pool)?.why).toBe('No worker serves base of demo.');
    expect(whyPoolWaits({ ...pool, ready: 0 })).toBeNull();
    const full = 'the disk that holds the artifacts (/a) is full: 1 MiB free, 8 MiB needed';
    expect(whyPoolWaits(pool, ['Redis is away', full])?.why).toBe(`The${full.slice(3)}.`);
    expect(whyPoolWaits({ ...pool, ready: 0 }, [full])).toBeNull();
  });
});

describe('rendering again', () => {
  it('asks for the same image, and reuses nothing', () => {
    const settings = [{ stage: 'base', steps: 20, eta: null, timesteps: [] }];
    const request = requestAgain(job({ settings, output: { format: 'png', compression_level: null, quality: null } }), image({ negative: 'dogs', mask: 'm', image: 'i' }), 'base', new Map([['base', 64], ['sr256', 256]]));
    expect(request.spec).toMatchObject({ cascade: 'd', no_reuse: true, images_per_prompt: 1, settings: { size: 64, start: 'masked', output: { format: 'png' }, stages: [{ stage: 'base', steps: 20 }] } });
    expect(request.prompts).toEqual([{ text: 'a cat', seed: '18446744073709551615', negative: 'dogs', image: 'i', mask: 'm' }]);
  });
  it('says whether the bytes are the same', () => {
    expect(verdict(image({}), image({})).same).toBe(true);
    expect(verdict(image({}), image({ sha256: 'y', device_class: 'B' })).words).toContain('The classes of device differ');
  });
});

describe('trying again', () => {
  const refused = (status: number, after: number | null = null): Problem => new Problem('no', status, '', null, after);
  it('helps against what passes, after the time that the farm names', () => {
    expect([retryMs(refused(503), 2000), retryMs(refused(429, 9), 2000), retryMs(refused(0, 1), 2000)]).toEqual([2000, 9000, 2000]);
    expect([retryMs(refused(404), 2000), retryMs(new Error('x'), 2000)]).toEqual([null, null]);
  });
  it('ends with the caller, and is no failure of what was to be done', async () => {
    const stop = new AbortController();
    const outcome = spread([1, 2, 3], async () => Promise.reject(refused(503)), { signal: stop.signal, progress: () => {} });
    stop.abort();
    expect(await outcome).toEqual({ done: 0, failed: [] });
  });
  it('says which of many failed', async () => {
    const work = async (item: number): Promise<void> => {
      if (item === 2) throw refused(404);
    };
    const { done, failed } = await spread([1, 2, 3], work, { signal: new AbortController().signal, progress: () => {} });
    expect([done, failed.map((one) => one.item)]).toEqual([2, [2]]);
  });
});

describe('lists in pages', () => {
  const pages: Record<string, Page<number>> = { '': { rows: [1, 2], next: 'a' }, a: { rows: [], next: 'b' }, b: { rows: [3], next: '' } };
  it('are read to the end', async () => {
    const found: number[] = [];
    expect(await everyPage(async (token) => pages[token], (rows) => void found.push(...rows))).toBe(false);
    expect(found).toEqual([1, 2, 3]);
  });
  it('are read until there is enough', async () => {
    expect(await everyPage(async (token) => pages[token], () => false)).toBe(true);
  });
});

describe('addresses', () => {
  it('hold any name of a job', () => {
    expect(imagePath('a/b', 3)).toBe('/jobs/a%2Fb/images/3');
    expect(comparePath(['a', 1, 'base'], ['b', '2'])).toBe('/compare?a=a%3A1%3Abase&b=b%3A2%3A');
    expect([reusePath('j'), reusePath('j', 0)]).toEqual(['/submit?from=j', '/submit?from=j&image=0']);
  });
});
