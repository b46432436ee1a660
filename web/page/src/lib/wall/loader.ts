// Loads pictures: few at a time, the ones that are seen first, each once, none that scrolled away.
import { isAborted, Problem, problemOf } from '../problem';

/** Browsers allow six connections per host on HTTP/1.1: one is the stream, one stays free. */
const AT_ONCE = 4;
const MOST_KEPT = 600;
/** After a failure, the same picture is not asked for again for this long. */
const AFTER_FAILURE_MS = 5000;
/** How long nothing is asked for after a refusal that passes and names no time. */
const REST_MS = 2000;

interface Wanted {
  url: string;
  deliver: (blobUrl: string) => void;
  fail: () => void;
  abort: AbortController;
}

export class Loader {
  #kept = new Map<string, string>();
  #waiting = new Map<string, Wanted>();
  #running = new Map<string, Wanted>();
  #failed = new Map<string, number>();
  #closed = false;
  #rests: ReturnType<typeof setTimeout> | undefined;

  /** Whether a picture is there already. */
  kept(url: string): string | undefined {
    const blob = this.#kept.get(url);
    if (blob !== undefined) {
      this.#kept.delete(url);
      this.#kept.set(url, blob);
    }
    return blob;
  }

  /** Asks for a picture. The latest wish is fulfilled first. */
  want(url: string, deliver: (blobUrl: string) => void, fail: () => void = () => {}): void {
    const blob = this.kept(url);
    if (blob !== undefined) {
      deliver(blob);
      return;
    }
    const running = this.#running.get(url);
    if (running) {
      running.deliver = deliver;
      running.fail = fail;
      return;
    }
    if ((this.#failed.get(url) ?? 0) > Date.now()) return;
    this.#waiting.delete(url);
    this.#waiting.set(url, { url, deliver, fail, abort: new AbortController() });
    this.#next();
  }

  /** Nobody sees this picture any more. */
  drop(url: string): void {
    this.#waiting.delete(url);
    this.#running.get(url)?.abort.abort();
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#rests);
    for (const one of this.#running.values()) one.abort.abort();
    this.#waiting.clear();
    for (const blob of this.#kept.values()) URL.revokeObjectURL(blob);
    this.#kept.clear();
  }

  #next(): void {
    while (this.#running.size < AT_ONCE && this.#waiting.size > 0 && !this.#closed && this.#rests === undefined) {
      const one = [...this.#waiting.values()].pop()!;
      this.#waiting.delete(one.url);
      this.#running.set(one.url, one);
      void this.#load(one);
    }
  }

  async #load(one: Wanted): Promise<void> {
    try {
      const answer = await fetch(one.url, { signal: one.abort.signal, credentials: 'same-origin' });
      if (!answer.ok) throw await problemOf(answer);
      const blob = URL.createObjectURL(await answer.blob());
      if (this.#closed) {
        URL.revokeObjectURL(blob);
        return;
      }
      this.#keep(one.url, blob);
      one.deliver(blob);
    } catch (error) {
      if (isAborted(error)) return;
      if (error instanceof Problem && !error.passing) {
        this.#failed.set(one.url, Date.now() + AFTER_FAILURE_MS);
        one.fail();
      } else {
        // The farm is away, or the tenant's quota of requests is used up for now.
        this.#waiting.set(one.url, { ...one, abort: new AbortController() });
        this.#rest(error instanceof Problem ? error.retryAfterSeconds : null);
      }
    } finally {
      this.#running.delete(one.url);
      this.#next();
    }
  }

  #rest(seconds: number | null): void {
    this.#rests ??= setTimeout(() => {
      this.#rests = undefined;
      this.#next();
    }, seconds === null ? REST_MS : seconds * 1000);
  }

  #keep(url: string, blob: string): void {
    this.#kept.set(url, blob);
    if (this.#kept.size <= MOST_KEPT) return;
    const [oldest, its] = this.#kept.entries().next().value!;
    this.#kept.delete(oldest);
    URL.revokeObjectURL(its);
  }
}
