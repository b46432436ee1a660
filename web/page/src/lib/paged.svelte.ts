// A list that the farm gives page by page.
import { Load } from './load.svelte';

export interface Page<T> {
  rows: T[];
  next: string;
}

type Ask<T> = (token: string, signal: AbortSignal) => Promise<Page<T>>;

export class Paged<T> {
  /** Where the next page begins; empty: this is all. */
  token = $state('');
  #from = '';
  readonly #load: Load<T[]>;

  /** `id` tells rows apart: one that comes on two pages stands once. */
  constructor(private readonly ask: Ask<T>, private readonly id: (row: T) => string) {
    this.#load = new Load((signal) => this.#read(signal));
  }

  /** `null` until the first page is there. */
  get rows(): T[] | null {
    return this.#load.value;
  }

  get error(): unknown {
    return this.#load.error;
  }

  get busy(): boolean {
    return this.#load.busy;
  }

  /** Begins anew. */
  again = (): Promise<void> => this.#go('');

  /** The next page, behind those that are there. */
  more = (): Promise<void> => this.#go(this.token);

  #go(from: string): Promise<void> {
    this.#from = from;
    return this.#load.again();
  }

  async #read(signal: AbortSignal): Promise<T[]> {
    const before = this.#from === '' ? [] : (this.rows ?? []);
    const rows = new Map(before.map((row) => [this.id(row), row]));
    let next = this.#from;
    // A page may be empty and still have a successor, because the farm looks at so many rows per call.
    do {
      const page = await this.ask(next, signal);
      for (const row of page.rows) if (!rows.has(this.id(row))) rows.set(this.id(row), row);
      next = page.next;
    } while (rows.size === before.length && next !== '' && !signal.aborted);
    if (!signal.aborted) this.token = next;
    return [...rows.values()];
  }
}

/** Reads page after page. It ends early where `look` says that it has enough: the answer is whether there is more. */
export async function everyPage<T>(ask: (token: string) => Promise<Page<T>>, look: (rows: T[]) => boolean | void): Promise<boolean> {
  let token = '';
  do {
    const page = await ask(token);
    token = page.next;
    if (look(page.rows) === false) break;
  } while (token !== '');
  return token !== '';
}
