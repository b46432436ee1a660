// One stream for all tabs of a browser: the tab that holds a lock has it and tells the others.
// Browsers allow six connections per host on HTTP/1.1, and each tab's own stream would take one.
import { randomId } from '../random';
import type { FarmEvent, Job, Worker } from '../types';

/** What a tab needs to begin with. */
export interface Snapshot {
  jobs: Job[];
  workers: Worker[] | null;
  cursor: string;
  caughtUp: boolean;
  open: boolean;
}

type Message =
  | { kind: 'hello'; from: string }
  | { kind: 'snapshot'; to: string; snapshot: Snapshot }
  | { kind: 'event'; event: FarmEvent }
  | { kind: 'state'; open: boolean };

interface Tab {
  /** This tab has the stream now. Returns what ends it. */
  lead(): () => void;
  event(event: FarmEvent): void;
  state(open: boolean): void;
  begin(snapshot: Snapshot): void;
  snapshot(): Snapshot;
}

/** Whether tabs can agree on a leader. Not on plain HTTP beyond this machine. */
export function canShare(): boolean {
  return 'locks' in navigator && navigator.locks !== undefined && 'BroadcastChannel' in globalThis;
}

export class Share {
  #channel: BroadcastChannel;
  #id = randomId();
  #leads = false;
  #stop = new AbortController();
  #release: () => void = () => {};

  /** Only tabs of the same caller share a stream: another one must not see its jobs. */
  constructor(caller: string, private readonly tab: Tab) {
    const name = `darkroom-stream ${caller}`;
    this.#channel = new BroadcastChannel(name);
    this.#channel.onmessage = (message: MessageEvent<Message>) => this.#hear(message.data);
    this.#say({ kind: 'hello', from: this.#id });
    void this.#wait(name);
  }

  /** Tells the other tabs; only the leader does. */
  tell(message: { kind: 'event'; event: FarmEvent } | { kind: 'state'; open: boolean }): void {
    if (this.#leads) this.#say(message);
  }

  close(): void {
    this.#stop.abort();
    this.#release();
    this.#channel.close();
  }

  async #wait(name: string): Promise<void> {
    try {
      await navigator.locks.request(name, { signal: this.#stop.signal }, async () => {
        if (this.#stop.signal.aborted) return;
        this.#leads = true;
        const end = this.tab.lead();
        await new Promise<void>((release) => {
          this.#release = release;
        });
        this.#leads = false;
        end();
      });
    } catch (error) {
      if (!this.#stop.signal.aborted) throw error;
    }
  }

  #say(message: Message): void {
    this.#channel.postMessage(message);
  }

  #hear(message: Message): void {
    switch (message.kind) {
      case 'hello':
        if (this.#leads) this.#say({ kind: 'snapshot', to: message.from, snapshot: this.tab.snapshot() });
        break;
      case 'snapshot':
        if (message.to === this.#id && !this.#leads) this.tab.begin(message.snapshot);
        break;
      case 'event':
        if (!this.#leads) this.tab.event(message.event);
        break;
      case 'state':
        if (!this.#leads) this.tab.state(message.open);
        break;
    }
  }
}
