// Where the page is: the path, and filters in the query, so that every view has an address.
import { tick } from 'svelte';

interface Where {
  path: string;
  query: URLSearchParams;
}

function here(): Where {
  return { path: location.pathname, query: new URLSearchParams(location.search) };
}

class Router {
  #where = $state.raw<Where>(here());
  /** Grows with each move to another page, not with changes of the query alone. */
  moves = $state(0);

  get path(): string {
    return this.#where.path;
  }

  get query(): URLSearchParams {
    return this.#where.query;
  }

  /** The path and query, to come back to. */
  get address(): string {
    const text = this.query.toString();
    return text === '' ? this.path : `${this.path}?${text}`;
  }

  start(): void {
    history.scrollRestoration = 'manual';
    addEventListener('popstate', (event) => {
      const before = this.path;
      this.#where = here();
      if (before !== this.path) this.moves += 1;
      const top = (event.state as { top?: number } | null)?.top ?? 0;
      void tick().then(() => requestAnimationFrame(() => scrollTo(0, top)));
    });
    document.addEventListener('click', (event) => this.#click(event));
  }

  go(address: string, options: { replace?: boolean } = {}): void {
    const before = this.path;
    const same = address === location.pathname + location.search;
    history.replaceState({ top: scrollY }, '');
    if (options.replace || same) history.replaceState({}, '', address);
    else history.pushState({}, '', address);
    this.#where = here();
    if (before !== this.path) {
      this.moves += 1;
      scrollTo(0, 0);
    }
  }

  /** Changes some parts of the query; `null` or an empty list removes one. */
  setQuery(changes: Record<string, string | string[] | null>, options: { push?: boolean } = {}): void {
    const query = new URLSearchParams(this.query);
    for (const [name, value] of Object.entries(changes)) {
      query.delete(name);
      const values = Array.isArray(value) ? value : value === null || value === '' ? [] : [value];
      for (const one of values) query.append(name, one);
    }
    const text = query.toString();
    this.go(text === '' ? this.path : `${this.path}?${text}`, { replace: !options.push });
  }

  #click(event: MouseEvent): void {
    if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const link = (event.target as Element | null)?.closest?.('a');
    if (!link || !link.href || link.target !== '' || link.hasAttribute('download')) return;
    const url = new URL(link.href);
    if (url.origin !== location.origin || url.pathname.startsWith('/api/') || url.hash !== '') return;
    event.preventDefault();
    this.go(url.pathname + url.search);
  }
}

export const router = new Router();
