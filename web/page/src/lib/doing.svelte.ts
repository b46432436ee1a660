// One action at a time: its button waits while it runs, and what went wrong stands beside it.
import { isAborted, sentence } from './problem';

export class Doing {
  busy = $state(false);
  /** Why it failed; empty until it has. */
  fault = $state('');

  /** Runs it, unless one runs already. Returns whether it succeeded. */
  async run(work: () => Promise<unknown>): Promise<boolean> {
    if (this.busy) return false;
    this.busy = true;
    this.fault = '';
    try {
      await work();
      return true;
    } catch (error) {
      if (!isAborted(error)) this.fault = sentence(error);
      return false;
    } finally {
      this.busy = false;
    }
  }
}
