// Does the same to many things, a few at a time, until it is done or stopped.
import { callerSignal } from './api';
import { isAborted, retryMs } from './problem';

const AT_ONCE = 4;
const TRIES = 4;
/** Whoever has to wait longer is told so instead. */
const LONGEST_MS = 20_000;

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
        if (isAborted(error)) return;
        outcome.failed.push({ item, error });
      }
      options.progress(outcome);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, lane));
  return outcome;
}

/** Tries again what can pass, after the time that the farm names. Never for another caller. */
export async function patiently<T>(work: () => Promise<T>, signal: AbortSignal = callerSignal()): Promise<T> {
  for (let tried = 1; ; tried++) {
    try {
      return await work();
    } catch (error) {
      const wait = retryMs(error, 1000 * 2 ** (tried - 1));
      if (wait === null || wait > LONGEST_MS || tried >= TRIES) throw error;
      await pause(wait, signal);
    }
  }
}

/** Waits; it throws when it is stopped. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener('abort', () => {
      clearTimeout(timer);
      reject(signal.reason as Error);
    }, { once: true });
  });
}
