// The list of jobs: pages of the record, kept up to date by the stream. Rows stay where they are.
import { jobs as api, type JobFilter } from './api';
import { fits } from './jobs-filter';
import { isAborted, Problem } from './problem';
import { farm, type Change } from './stream/farm.svelte';
import type { Job } from './types';

const PAGE = 50;
const AGAIN_MS = 4000;

export class Row {
  job = $state.raw<Job>()!;
  selected = $state(false);
  deleted = $state(false);

  constructor(job: Job) {
    this.job = job;
  }
}

export class JobList {
  rows = $state.raw<Row[]>([]);
  /** Jobs that were submitted since the list was loaded. */
  fresh = $state.raw<ReadonlySet<string>>(new Set());
  busy = $state(false);
  loaded = $state(false);
  error = $state.raw<unknown>(null);
  token = $state('');
  #byId = new Map<string, Row>();
  #filter: JobFilter = {};
  #abort: AbortController | null = null;
  #newest = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** Follows the stream. Returns what ends that. */
  follow(): () => void {
    const end = farm.listen((change) => this.#take(change));
    return () => {
      end();
      clearTimeout(this.#timer);
      this.#abort?.abort();
    };
  }

  async load(filter: JobFilter): Promise<void> {
    this.#filter = filter;
    await this.#page('', true);
  }

  async more(): Promise<void> {
    await this.#page(this.token, false);
  }

  async #page(token: string, first: boolean): Promise<void> {
    clearTimeout(this.#timer);
    this.#abort?.abort();
    const abort = new AbortController();
    this.#abort = abort;
    this.busy = true;
    this.error = null;
    try {
      // A page may be empty and still have a successor, because the farm looks at so many jobs per call.
      let next = token;
      let found: Job[] = [];
      do {
        const page = { page_size: PAGE, ...(next ? { page_token: next } : {}) };
        const answer = await api.list(this.#filter, page, abort.signal);
        found = found.concat(answer.jobs);
        next = answer.next_page_token;
      } while (found.length === 0 && next !== '' && !abort.signal.aborted);
      if (abort.signal.aborted) return;
      this.#show(found, first);
      this.token = next;
      this.loaded = true;
    } catch (error) {
      if (isAborted(error)) return;
      this.error = error;
      if (error instanceof Problem && error.passing) this.#timer = setTimeout(() => void this.#page(token, first), AGAIN_MS);
    } finally {
      if (this.#abort === abort) this.busy = false;
    }
  }

  #show(jobs: Job[], first: boolean): void {
    if (first) {
      this.#byId.clear();
      this.fresh = new Set();
    }
    const added = jobs.filter((job) => !this.#byId.has(job.id)).map((job) => new Row(job));
    for (const row of added) this.#byId.set(row.job.id, row);
    this.rows = first ? added : [...this.rows, ...added];
    this.#newest = Math.max(0, ...this.rows.map((row) => row.job.created_at ?? 0));
  }

  #take(change: Change): void {
    const fresh = new Set(this.fresh);
    for (const job of change.jobs) {
      const row = this.#byId.get(job.id);
      if (row) row.job = job;
      else if (this.loaded && (job.created_at ?? 0) >= this.#newest && fits(this.#filter, job)) fresh.add(job.id);
    }
    for (const id of change.deleted) {
      const row = this.#byId.get(id);
      if (row) row.deleted = true;
      fresh.delete(id);
    }
    if (fresh.size !== this.fresh.size) this.fresh = fresh;
  }
}
