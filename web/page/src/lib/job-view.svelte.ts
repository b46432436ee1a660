// One job and the states of its images, kept up to date while its page is open.
import { images as imagesApi, jobs as api } from './api';
import { isAborted, Problem } from './problem';
import { farm, isOpen } from './stream/farm.svelte';
import type { ImageMapAnswer, Job } from './types';
import { toNumber } from './u64';
import { ImageMap, type Span } from './wall/image-map';

const BETWEEN_UPDATES_MS = 1000;
const AGAIN_MS = 3000;
const BETWEEN_QUIET_LOOKS_MS = 10_000;

export class JobView {
  job = $state.raw<Job | null>(null);
  map = $state.raw<ImageMap | null>(null);
  error = $state.raw<unknown>(null);
  mapError = $state.raw<unknown>(null);
  deleted = $state(false);
  /** Prompt of the first image, which says more than a name. */
  prompt = $state('');
  /** Grows when states of images have changed. */
  ticks = $state(0);
  #abort = new AbortController();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #busy = false;
  #again = false;
  #last = 0;
  #listeners = new Set<(spans: Span[]) => void>();
  #end: () => void;
  #quiet: ReturnType<typeof setInterval>;

  constructor(readonly id: string) {
    this.#end = farm.listen((change) => {
      if (change.deleted.includes(id)) this.deleted = true;
      const told = change.jobs.find((one) => one.id === id);
      if (told) this.#told(told);
      // After a lost connection to another state of the farm, everything may be different.
      else if (change.reset) this.#soon();
    });
    // What a job waits for can change without a change of the job.
    this.#quiet = setInterval(() => {
      if (!document.hidden && !farm.paused && this.job && isOpen(this.job)) this.#soon();
    }, BETWEEN_QUIET_LOOKS_MS);
    void this.load();
  }

  /** Calls back with the parts of the map that changed. */
  listen(listener: (spans: Span[]) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async load(): Promise<void> {
    await this.#update();
  }

  /** Takes over what a command answered. */
  put(job: Job): void {
    this.job = job;
    farm.put(job);
    this.#soon();
  }

  close(): void {
    this.#abort.abort();
    this.#end();
    clearInterval(this.#quiet);
    clearTimeout(this.#timer);
  }

  #told(job: Job): void {
    const known = this.job;
    if (known && toNumber(known.version) >= toNumber(job.version)) return;
    // Listings do not say what a job waits for, so that stays until the job itself is asked for.
    if (known) this.job = { ...job, waiting_for: isOpen(job) ? known.waiting_for : '', tasks_ahead: known.tasks_ahead };
    this.#soon();
  }

  #soon(): void {
    const wait = Math.max(0, this.#last + BETWEEN_UPDATES_MS - Date.now());
    this.#timer ??= setTimeout(() => this.#late(), wait);
  }

  #late(): void {
    this.#timer = undefined;
    void this.#update();
  }

  async #update(): Promise<void> {
    if (this.#busy) {
      this.#again = true;
      return;
    }
    this.#busy = true;
    this.#last = Date.now();
    try {
      // The first map does not wait for the job. Whether it came matters only if the job did.
      const early = this.map === null ? api.map(this.id, {}, this.#abort.signal).catch(() => null) : null;
      const job = await api.get(this.id, this.#abort.signal);
      this.job = job;
      this.error = null;
      if (this.prompt === '' && job.state !== 'receiving') void this.#firstPrompt();
      await this.#updateMap(job, await early);
    } catch (error) {
      if (isAborted(error)) return;
      if (error instanceof Problem && error.status === 404 && this.job !== null) this.deleted = true;
      else this.error = error;
      if (error instanceof Problem && error.passing) this.#timer ??= setTimeout(() => this.#late(), AGAIN_MS);
    } finally {
      this.#busy = false;
      if (this.#again) {
        this.#again = false;
        this.#soon();
      }
    }
  }

  async #firstPrompt(): Promise<void> {
    try {
      const { images } = await imagesApi.list(this.id, { page_size: 1 }, this.#abort.signal);
      this.prompt = images[0]?.prompt ?? '';
    } catch {
      // The page says nothing wrong without it, and the next update asks again.
    }
  }

  async #updateMap(job: Job, early: ImageMapAnswer | null): Promise<void> {
    const images = toNumber(job.images);
    if (images === 0 || job.state === 'receiving') return;
    const fresh = this.map === null || this.map.images !== images;
    const map = fresh ? new ImageMap(images) : this.map!;
    if (!fresh && map.known >= images && toNumber(job.version) <= toNumber(map.version)) return;
    try {
      const since = map.known >= images ? map.version : 0;
      let version: ImageMap['version'] | null = null;
      let first: number | string = 0;
      do {
        const query: { first_index?: number | string; since_version?: number | string } = {};
        if (toNumber(first) > 0) query.first_index = first;
        if (toNumber(since) > 0) query.since_version = since;
        const answer = early ?? (await api.map(this.id, query, this.#abort.signal));
        early = null;
        version ??= answer.version;
        const spans = map.apply(answer);
        // The first part is enough to begin with.
        if (this.map !== map) this.map = map;
        if (spans.length > 0) this.ticks += 1;
        for (const listener of this.#listeners) listener(spans);
        first = answer.next_index ?? 0;
      } while (toNumber(first) > 0);
      map.version = version;
      this.mapError = null;
    } catch (error) {
      if (isAborted(error)) throw error;
      this.mapError = error;
    }
  }
}
