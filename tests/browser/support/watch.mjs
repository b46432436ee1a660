// What no page may do, whatever a test is about: ask other hosts, break the Content-Security-Policy,
// or report errors.
import { gzipSync } from 'node:zlib';

/** Chromium's words for an answer with an error status, or for none. */
const REFUSED = /^Failed to load resource: /;

export class Watch {
  /** Requests to the API, in order: `GET /api/v1/jobs`. */
  requests = [];
  #scripts = new Map();
  #faults = [];
  #pending = [];

  /** @param {{refusals?: boolean}} expected whether answers with an error status are part of the test */
  constructor(context, farm, { refusals = false } = {}) {
    context.on('request', (request) => {
      const url = new URL(request.url());
      if (url.protocol === 'blob:' || url.protocol === 'data:') return;
      if (url.host !== farm.address) this.#faults.push(`a request to another host: ${request.url()}`);
      if (url.pathname.startsWith('/api/')) this.requests.push(`${request.method()} ${url.pathname}${url.search}`);
    });
    context.on('response', (response) => {
      if (response.request().resourceType() !== 'script') return;
      this.#pending.push(response.body().then((script) => this.#scripts.set(response.url(), gzipSync(script).length), () => {}));
    });
    context.on('weberror', (error) => this.#faults.push(`an error of the script: ${error.error().stack}`));
    context.on('console', (message) => {
      const text = message.text();
      if (message.type() === 'error' && !(refusals && REFUSED.test(text))) this.#faults.push(`in the console: ${text}`);
    });
  }

  /** How many requests to the API match a pattern. */
  count(pattern) {
    return this.requests.filter((one) => pattern.test(one)).length;
  }

  /** Gzipped bytes of all scripts that were loaded. */
  async scriptBytes() {
    await Promise.all(this.#pending);
    return [...this.#scripts.values()].reduce((sum, bytes) => sum + bytes, 0);
  }

  /** Fails if the page did what it may not do. */
  check() {
    if (this.#faults.length > 0) throw new Error(`the page did what it may not do:\n${[...new Set(this.#faults)].join('\n')}`);
  }

  /** Forgets what a test provoked. */
  forget() {
    this.#faults = [];
  }
}
