// One stream of server-sent events that comes back by itself, from the last cursor on.
import { eventsUrl } from '../api';
import type { FarmEvent } from '../types';

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 20_000;
/** An open that takes longer is given up: a proxy may hold it without an answer. */
const OPEN_LIMIT_MS = 15_000;
/** The farm sends something every 15 seconds, so a stream that says nothing for this long is dead. */
const SILENCE_MS = 45_000;

interface Handlers {
  event(event: FarmEvent): void;
  /** Whether the stream is open. */
  state(open: boolean): void;
  /** Called before each new try; `false`: the session has ended, so stop. */
  mayRetry(): Promise<boolean>;
}

export class Connection {
  #source: EventSource | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #failures = 0;
  #closed = false;

  constructor(private cursor: string, private readonly handlers: Handlers) {
    addEventListener('online', this.#again);
    this.#open();
  }

  close(): void {
    this.#closed = true;
    removeEventListener('online', this.#again);
    this.#drop();
  }

  /** Tries now instead of at the end of the wait. */
  #again = (): void => {
    if (this.#closed || this.#source?.readyState === EventSource.OPEN) return;
    this.#failures = 0;
    this.#drop();
    this.#open();
  };

  #drop(): void {
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = null;
  }

  #open(): void {
    const source = new EventSource(eventsUrl(this.cursor));
    this.#source = source;
    this.#failAfter(OPEN_LIMIT_MS);
    source.onopen = () => {
      this.#failAfter(SILENCE_MS);
      this.#failures = 0;
      this.handlers.state(true);
    };
    source.addEventListener('beat', () => this.#failAfter(SILENCE_MS));
    source.addEventListener('change', (message: MessageEvent<string>) => {
      this.#failAfter(SILENCE_MS);
      const event = JSON.parse(message.data) as FarmEvent;
      this.cursor = message.lastEventId || event.cursor;
      this.handlers.event({ ...event, cursor: this.cursor });
    });
    source.addEventListener('problem', () => this.#fail());
    source.onerror = () => this.#fail();
  }

  #failAfter(ms: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#fail(), ms);
  }

  // The browser's own retry has no growing wait and gives up after an HTTP error, so it is ours.
  #fail(): void {
    if (this.#closed || this.#source === null) return;
    this.#drop();
    this.#failures += 1;
    this.handlers.state(false);
    const most = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** Math.min(this.#failures, 8));
    // All pages of a restarted farm would otherwise come back at the same moment.
    this.#timer = setTimeout(() => void this.#retry(), most / 2 + Math.random() * (most / 2));
  }

  async #retry(): Promise<void> {
    const may = await this.handlers.mayRetry();
    if (!may || this.#closed || this.#source !== null) return;
    this.#open();
  }
}
