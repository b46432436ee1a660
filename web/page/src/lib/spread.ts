// Does the same to many things, a few at a time, until it is done or stopped.
import { Problem } from './problem';

const AT_ONCE = 4;
const TRIES = 4;

export interface Outcome<T> {
  done: number;
  failed: { item: T; error: unknown }[];
}

/** Calls `work` for each item. Refusals that pass (429, 503, no answer) are tried again. */
export async function spread<T>(
  items: readonly T[],
  work: (item: T) => Promise<unknown>,
  options: { signal: AbortSignal; progress: (outcome: Outcome<T>) => void },
): Promise<Outcome<T>> {
  const outcome: Outcome<T> = { done: 0, failed: [] };
  let next = 0;
  const lane = async (): Promise<void> => {
    while (next < items.length && !options.signal.aborted) {
      const item = items[next++];
      try {
        await patiently(() => work(item), options.signal);
        outcome.done += 1;
      } catch (error) {
        outcome.failed.push({ item, error });
      }
      options.progress(outcome);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, lane));
  return outcome;
}

/** Tries again what can pass, after the time that the farm names. */
export async function patiently<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
  for (let tried = 1; ; tried++) {
    try {
      return await work();
    } catch (error) {
      const passing = error instanceof Problem && error.passing;
      if (!passing || tried >= TRIES || signal?.aborted) throw error;
      await pause(Math.min(20, error.retryAfterSeconds ?? 2 ** (tried - 1)) * 1000, signal);
    }
  }
}

/** Waits; ends early when it is stopped. */
export function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener('abort', () => {
      clearTimeout(timer);
      resolve();
    }, { once: true });
  });
}
