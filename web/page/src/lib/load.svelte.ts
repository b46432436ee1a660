// One thing that a view asks the farm for: loading, there, or refused. It ends with the view.
import { onDestroy } from 'svelte';
import { isAborted, retryMs } from './problem';

const AGAIN_MS = 4000;

export class Load<T> {
  value = $state.raw<T | null>(null);
  error = $state.raw<unknown>(null);
  busy = $state(false);
  #abort: AbortController | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(private readonly ask: (signal: AbortSignal) => Promise<T>) {
    onDestroy(() => this.stop());
  }

  /** Asks again; an older call ends. What was there stays until the answer is. What can pass is tried again by itself. */
  again = async (): Promise<void> => {
    this.stop();
    const abort = new AbortController();
    this.#abort = abort;
    this.busy = true;
    try {
      const value = await this.ask(abort.signal);
      if (abort.signal.aborted) return;
      this.value = value;
      this.error = null;
    } catch (error) {
      if (isAborted(error) || abort.signal.aborted) return;
      this.error = error;
      const wait = retryMs(error, AGAIN_MS);
      if (wait !== null) this.#timer = setTimeout(() => void this.again(), wait);
    } finally {
      if (this.#abort === abort) this.busy = false;
    }
  };

  /** Gives up what runs or waits to be tried again. */
  stop(): void {
    clearTimeout(this.#timer);
    this.#abort?.abort();
    this.busy = false;
  }

  /** Gives up, and forgets what was there. */
  forget(): void {
    this.stop();
    this.value = this.error = null;
  }
}
