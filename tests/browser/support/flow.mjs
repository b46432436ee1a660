// A flow: a test with a farm and a page of its own, which end with it.
import { mkdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { newContext } from './browser.mjs';
import { Farm } from './farm.mjs';
import { Watch } from './watch.mjs';

const FAILED = join(tmpdir(), 'darkroom-browser-failed');

/**
 * @typedef {object} Options
 * @property {string[]} [flags] of `darkroom up`
 * @property {object} [context] of the browser, such as `viewport`
 * @property {boolean} [refusals] whether the farm refuses or misses requests as part of the test
 * @property {boolean} [loggedIn] whether the page starts logged in; it does unless this is false
 * @property {number} [timeoutMs]
 */

/**
 * Declares a test. `name` is a sentence that is true when it passes.
 * @param {string} name
 * @param {Options} options
 * @param {(all: {farm: Farm, page: import('playwright-core').Page, watch: Watch, t: import('node:test').TestContext}) => Promise<void>} body
 */
export function flow(name, options, body) {
  test(name, { timeout: options.timeoutMs ?? 180_000 }, async (t) => {
    const farm = new Farm(options.flags);
    let context;
    try {
      await farm.start();
      context = await newContext(options.context);
      const watch = new Watch(context, farm, options);
      const page = await context.newPage();
      if (options.loggedIn !== false) await logIn(farm, page);
      try {
        await body({ farm, page, watch, t });
        watch.check();
      } catch (error) {
        await report(t, name, farm, page);
        throw error;
      }
    } finally {
      await context?.close();
      await farm.remove();
    }
  });
}

/** Logs in by a link like the one that `darkroom up` prints. */
export async function logIn(farm, page, { key = farm.key, path = '/jobs' } = {}) {
  await page.goto(`${farm.url}${path}#key=${key}`);
  await page.getByRole('button', { name: 'Log out' }).waitFor();
}

async function report(t, name, farm, page) {
  mkdirSync(FAILED, { recursive: true });
  const path = join(FAILED, `${name.replace(/\W+/g, '-')}.png`);
  const shown = await page.screenshot({ path, timeout: 10_000 }).then(() => `the page: ${path}`, (error) => `no screenshot: ${error.message}`);
  t.diagnostic(`${shown}\naddress: ${page.url()}\nlog of the farm:\n${farm.log.join('\n')}`);
}
