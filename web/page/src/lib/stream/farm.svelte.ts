// The farm as its stream tells it: open jobs, workers, and whether the connection stands.
import { session as sessionApi } from '../api';
import { Problem } from '../problem';
import { session } from '../session.svelte';
import type { FarmEvent, Job, Worker } from '../types';
import { toNumber } from '../u64';
import { Connection } from './connection';
import { canShare, Share, type Snapshot } from './leader';

const BETWEEN_UPDATES_MS = 200;
const MOST_ENDED_JOBS = 2000;

/** What changed since the listener was last called. */
export interface Change {
  jobs: Job[];
  deleted: string[];
  reset: boolean;
}

const OPEN: ReadonlySet<string> = new Set(['receiving', 'active', 'paused']);

export function isOpen(job: Job): boolean {
  return OPEN.has(job.state);
}

class FarmState {
  /** Grows with each update; reading it makes a view follow the jobs. */
  tick = $state(0);
  workers = $state.raw<Worker[] | null>(null);
  connected = $state(true);
  caughtUp = $state(false);
  paused = $state(false);
  /** Changes that wait while updates are paused. */
  waiting = $state(0);
  #jobs = new Map<string, Job>();
  #cursor = '';
  #pending = new Map<string, Job | null>();
  #pendingWorkers: Worker[] | null = null;
  #pendingReset = false;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #share: Share | null = null;
  #connection: Connection | null = null;
  #listeners = new Set<(change: Change) => void>();
  #started = false;

  /** Follows the farm for a caller, whose tabs share one stream. */
  start(caller: string): void {
    if (this.#started) return;
    this.#started = true;
    if (canShare()) {
      this.#share = new Share(caller, {
        lead: () => this.#connect(),
        event: (event) => this.#take(event),
        state: (open) => (this.connected = open),
        begin: (snapshot) => this.#begin(snapshot),
        snapshot: () => this.#snapshot(),
      });
    } else {
      document.addEventListener('visibilitychange', this.#seen);
      this.#seen();
    }
  }

  /** Ends the stream and forgets everything, as after a logout. */
  stop(): void {
    this.#started = false;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#share?.close();
    this.#share = null;
    document.removeEventListener('visibilitychange', this.#seen);
    this.#connection?.close();
    this.#connection = null;
    this.#jobs.clear();
    this.#pending.clear();
    this.#pendingWorkers = null;
    this.#pendingReset = false;
    this.#cursor = '';
    this.workers = null;
    this.caughtUp = false;
    this.connected = true;
    this.paused = false;
    this.waiting = 0;
  }

  job(id: string): Job | undefined {
    return this.#jobs.get(id);
  }

  /** Calls back after each update. Returns what ends that. */
  listen(listener: (change: Change) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  pause(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.paused = true;
    this.waiting = this.#waits;
  }

  resume(): void {
    this.paused = false;
    this.#flush();
  }

  /** Shows a job as a command answered it. What waits for others goes on waiting. */
  put(job: Job): void {
    if (!this.#started) return;
    const waits = this.#pending.get(job.id);
    // A reset that waits would remove the job.
    if (waits !== undefined || this.#pendingReset) this.#pending.set(job.id, waits ? newer(waits, job) : job);
    this.#apply(new Map([[job.id, job]]), false);
  }

  /** The job was deleted. */
  forget(id: string): void {
    this.#pending.delete(id);
    this.#apply(new Map([[id, null]]), false);
  }

  #seen = (): void => {
    if (document.hidden) {
      this.#connection?.close();
      this.#connection = null;
    } else if (this.#connection === null) {
      this.#connect();
    }
  };

  #connect(): () => void {
    const connection = new Connection(this.#cursor, {
      event: (event) => {
        this.#share?.tell({ kind: 'event', event });
        this.#take(event);
      },
      state: (open) => {
        this.#share?.tell({ kind: 'state', open });
        this.connected = open;
      },
      mayRetry,
    });
    this.#connection = connection;
    return () => connection.close();
  }

  /** All up to the cursor, so also what this tab has yet to show. */
  #snapshot(): Snapshot {
    const jobs = new Map(this.#pendingReset ? [] : this.#jobs);
    for (const [id, job] of this.#pending) {
      const known = jobs.get(id);
      if (job === null) jobs.delete(id);
      else jobs.set(id, known ? newer(known, job) : job);
    }
    return { jobs: [...jobs.values()], workers: this.#pendingWorkers ?? this.workers, cursor: this.#cursor, caughtUp: this.caughtUp, open: this.connected };
  }

  #begin(snapshot: Snapshot): void {
    this.connected = snapshot.open;
    this.#take({
      jobs: snapshot.jobs,
      ...(snapshot.workers ? { workers: { workers: snapshot.workers } } : {}),
      cursor: snapshot.cursor,
      reset: true,
      caught_up: snapshot.caughtUp,
    });
  }

  #take(event: FarmEvent): void {
    this.#cursor = event.cursor;
    if (event.reset) {
      this.#pending.clear();
      this.#pendingReset = true;
    }
    for (const job of event.jobs) this.#pending.set(job.id, job);
    for (const id of event.deleted_jobs ?? []) this.#pending.set(id, null);
    if (event.workers) this.#pendingWorkers = event.workers.workers;
    if (event.caught_up) this.caughtUp = true;
    if (this.paused) {
      this.waiting = this.#waits;
    } else {
      this.#timer ??= setTimeout(() => this.#flush(), BETWEEN_UPDATES_MS);
    }
  }

  #flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const changes = this.#pending;
    const reset = this.#pendingReset;
    this.#pending = new Map();
    this.#pendingReset = false;
    if (this.#pendingWorkers) this.workers = this.#pendingWorkers;
    this.#pendingWorkers = null;
    this.#apply(changes, reset);
  }

  get #waits(): number {
    return this.#pending.size + (this.#pendingWorkers ? 1 : 0);
  }

  #apply(changes: ReadonlyMap<string, Job | null>, reset: boolean): void {
    const change: Change = { jobs: [], deleted: [], reset };
    if (reset) this.#jobs.clear();
    for (const [id, job] of changes) {
      const known = this.#jobs.get(id);
      if (job === null) {
        this.#jobs.delete(id);
        change.deleted.push(id);
      } else if (!known || newer(known, job) === job) {
        this.#jobs.set(id, job);
        change.jobs.push(job);
      }
    }
    this.waiting = this.paused ? this.#waits : 0;
    this.#prune();
    this.tick += 1;
    for (const listener of this.#listeners) listener(change);
  }

  /** A page that stays open for weeks must not keep every job that ever ended. */
  #prune(): void {
    if (this.#jobs.size <= MOST_ENDED_JOBS) return;
    for (const [id, job] of this.#jobs) {
      if (!isOpen(job)) this.#jobs.delete(id);
      if (this.#jobs.size <= MOST_ENDED_JOBS) return;
    }
  }
}

/** The newer one of two accounts of a job; of two that are as new, the second. */
export function newer(a: Job, b: Job): Job {
  return toNumber(b.version) >= toNumber(a.version) ? b : a;
}

/** A stream does not say why it was refused, so the session is asked. */
async function mayRetry(): Promise<boolean> {
  try {
    await sessionApi.read();
    return true;
  } catch (error) {
    if (error instanceof Problem && error.status === 401) {
      void session.again();
      return false;
    }
    return true;
  }
}

export const farm = new FarmState();
