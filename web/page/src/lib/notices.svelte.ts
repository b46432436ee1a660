// Short messages: shown for some seconds, and read out by screen readers.

interface Notice {
  id: number;
  text: string;
  kind: 'plain' | 'bad';
}

const SHOWN_MS = 8000;
const BETWEEN_ANNOUNCEMENTS_MS = 3000;

class Notices {
  shown = $state.raw<Notice[]>([]);
  /** The sentence that a screen reader reads out next. */
  spoken = $state('');
  #next = 1;
  #lastSpoken = 0;
  #pending: string | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;

  show(text: string, kind: Notice['kind'] = 'plain'): void {
    const notice = { id: this.#next++, text, kind };
    this.shown = [...this.shown.slice(-3), notice];
    setTimeout(() => this.close(notice.id), kind === 'bad' ? 2 * SHOWN_MS : SHOWN_MS);
  }

  clear(): void {
    this.shown = [];
    this.spoken = '';
    this.#pending = null;
    clearTimeout(this.#timer);
  }

  close(id: number): void {
    this.shown = this.shown.filter((one) => one.id !== id);
  }

  /** Reads a sentence out. Of several within seconds, the last one counts. */
  announce(text: string): void {
    const wait = this.#lastSpoken + BETWEEN_ANNOUNCEMENTS_MS - Date.now();
    const waits = this.#pending !== null;
    this.#pending = text;
    if (!waits) this.#timer = setTimeout(() => this.#speak(), Math.max(0, wait));
  }

  #speak(): void {
    this.spoken = this.#pending ?? '';
    this.#pending = null;
    this.#lastSpoken = Date.now();
  }
}

export const notices = new Notices();
