// The list of jobs: pages of the record, kept up to date by the stream. Rows stay where they are.
import type { JobFilter } from './api';
import { listJobs } from './commands';
import { fits } from './jobs-filter';
import { Paged } from './paged.svelte';
import { farm, newer, type Change } from './stream/farm.svelte';
import type { Job } from './types';

const PAGE = 50;
const LOOK_MS = 15_000;
const LOOKED_AT = 200;

export class Row {
  job = $state.raw<Job>()!;
  selected = $state(false);
  deleted = $state(false);

  constructor(job: Job) {
    this.job = job;
  }
}

export class JobList {
  /** Jobs that were submitted since the list was loaded. */
  fresh = $state.raw<ReadonlySet<string>>(new Set());
  readonly pages = new Paged<Row>((token, signal) => this.#page(token, signal), (row) => row.job.id);
  #filter: JobFilter = {};

  get rows(): Row[] {
    return this.pages.rows ?? [];
  }

  /** Follows the stream. Returns what ends that. */
  follow(): () => void {
    const end = farm.listen((change) => this.#take(change));
    const timer = setInterval(() => void this.#look(), LOOK_MS);
    return () => {
      end();
      clearInterval(timer);
    };
  }

  /** A job's reason to wait can end without an event, so this lists the active jobs again. */
  async #look(): Promise<void> {
    const waits = (row: Row): boolean => !row.deleted && row.job.state === 'active' && row.job.waiting_for !== '';
    if (document.hidden || farm.paused || !this.rows.some(waits)) return;
    const told = await listJobs({ ...this.#filter, state: ['active'] }, LOOKED_AT, '', AbortSignal.timeout(LOOK_MS)).catch(() => null);
    const now = new Map(told?.rows.map((job) => [job.id, job]));
    for (const row of this.rows) row.job = newer(row.job, now.get(row.job.id) ?? row.job);
  }

  async load(filter: JobFilter): Promise<void> {
    this.#filter = filter;
    await this.pages.again();
  }

  async #page(token: string, signal: AbortSignal): Promise<{ rows: Row[]; next: string }> {
    const { rows, next } = await listJobs(this.#filter, PAGE, token, signal);
    if (token === '' && !signal.aborted) this.fresh = new Set();
    // The stream may have told something newer while the page was on its way.
    return { rows: rows.map((job) => new Row(newer(farm.job(job.id) ?? job, job))), next };
  }

  #take(change: Change): void {
    const rows = new Map(this.rows.map((row) => [row.job.id, row]));
    const newest = Math.max(0, ...this.rows.map((row) => row.job.created_at ?? 0));
    const fresh = new Set(this.fresh);
    for (const job of change.jobs) {
      const row = rows.get(job.id);
      if (row) row.job = newer(row.job, job);
      else if (this.pages.rows !== null && (job.created_at ?? 0) >= newest && fits(this.#filter, job)) fresh.add(job.id);
    }
    for (const id of change.deleted) {
      const row = rows.get(id);
      if (row) row.deleted = true;
      fresh.delete(id);
    }
    if (fresh.size !== this.fresh.size) this.fresh = fresh;
  }
}
