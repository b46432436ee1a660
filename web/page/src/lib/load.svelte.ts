// One thing that a view asks the farm for: loading, there, or refused. It ends with the view.
import { onDestroy } from 'svelte';
import { isAborted, Problem } from './problem';

const AGAIN_MS = 4000;

export class Load<T> {
  value = $state.raw<T | null>(null);
  error = $state.raw<unknown>(null);
  busy = $state(false);
  #abort: AbortController | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(private readonly ask: (signal: AbortSignal) => Promise<T>) {
    onDestroy(() => this.#stop());
  }

  /** Asks again. What was there stays until the answer is. What can pass is tried again by itself. */
  async again(): Promise<void> {
    this.#stop();
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
      if (error instanceof Problem && error.passing) this.#timer = setTimeout(() => void this.again(), AGAIN_MS);
    } finally {
      if (!abort.signal.aborted) this.busy = false;
    }
  }

  #stop(): void {
    clearTimeout(this.#timer);
    this.#abort?.abort();
  }
}
