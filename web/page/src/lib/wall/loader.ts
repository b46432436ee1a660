// Loads pictures: few at a time, the ones that are seen first, each once, none that scrolled away.
import { answerTo } from '../api';
import { isAborted, Problem, retryMs } from '../problem';

/** Browsers allow six connections per host on HTTP/1.1: one is the stream, one stays free. */
const AT_ONCE = 4;
const MOST_KEPT = 600;
/** After a failure, the same picture is not asked for again for this long. */
const AFTER_FAILURE_MS = 30_000;
/** How long nothing is asked for after a refusal that passes and names no time. */
const REST_MS = 2000;
const GONE = [404, 410];

interface Wanted {
  url: string;
  deliver: (blobUrl: string) => void;
  /** `gone`: there is no such picture, and asking again does not help. */
  fail: (gone: boolean) => void;
  abort: AbortController;
}

export class Loader {
  #kept = new Map<string, string>();
  #waiting = new Map<string, Wanted>();
  #running = new Map<string, Wanted>();
  #failed = new Map<string, number>();
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
  want(url: string, deliver: (blobUrl: string) => void, fail: (gone: boolean) => void = () => {}): void {
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
    const until = this.#failed.get(url) ?? 0;
    if (until > Date.now()) {
      fail(until === Infinity);
      return;
    }
    this.#waiting.delete(url);
    this.#waiting.set(url, { url, deliver, fail, abort: new AbortController() });
    this.#next();
  }

  /** Nobody sees this picture any more. */
  drop(url: string): void {
    this.#waiting.delete(url);
    this.#running.get(url)?.abort.abort();
    // Who wants it again before the call has ended starts another one.
    this.#running.delete(url);
  }

  /** Gives up all calls, and forgets all pictures. */
  forget(): void {
    clearTimeout(this.#rests);
    this.#rests = undefined;
    for (const one of this.#running.values()) one.abort.abort();
    this.#running.clear();
    this.#waiting.clear();
    for (const blob of this.#kept.values()) URL.revokeObjectURL(blob);
    this.#kept.clear();
    this.#failed.clear();
  }

  #next(): void {
    while (this.#running.size < AT_ONCE && this.#waiting.size > 0 && this.#rests === undefined) {
      const one = [...this.#waiting.values()].pop()!;
      this.#waiting.delete(one.url);
      this.#running.set(one.url, one);
      void this.#load(one);
    }
  }

  async #load(one: Wanted): Promise<void> {
    try {
      const answer = await answerTo(one.url, { signal: one.abort.signal });
      const picture = await answer.blob();
      one.abort.signal.throwIfAborted();
      const blob = URL.createObjectURL(picture);
      this.#keep(one.url, blob);
      one.deliver(blob);
    } catch (error) {
      if (isAborted(error)) return;
      if (error instanceof Problem && !error.passing) {
        const gone = GONE.includes(error.status);
        this.#failed.set(one.url, gone ? Infinity : Date.now() + AFTER_FAILURE_MS);
        one.fail(gone);
      } else {
        // The farm is away, or the tenant's quota of requests is used up for now.
        this.#waiting.set(one.url, { ...one, abort: new AbortController() });
        this.#rest(retryMs(error, REST_MS) ?? REST_MS);
      }
    } finally {
      if (this.#running.get(one.url) === one) this.#running.delete(one.url);
      this.#next();
    }
  }

  #rest(ms: number): void {
    this.#rests ??= setTimeout(() => {
      this.#rests = undefined;
      this.#next();
    }, ms);
  }

  #keep(url: string, blob: string): void {
    this.#kept.set(url, blob);
    if (this.#kept.size <= MOST_KEPT) return;
    const [oldest, its] = this.#kept.entries().next().value!;
    this.#kept.delete(oldest);
    URL.revokeObjectURL(its);
  }
}
