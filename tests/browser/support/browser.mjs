// Debian's Chromium, one per process of tests; each test has a context of its own in it.
import { existsSync } from 'node:fs';
import { after } from 'node:test';
import { chromium } from 'playwright-core';

const PLACES = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser'];
/** How long anything on the page may take. */
export const PATIENCE_MS = 30_000;

let launched = null;

async function browser() {
  const executablePath = PLACES.find((place) => place && existsSync(place));
  if (!executablePath) throw new Error('chromium is not installed; tools/setup-browser.sh installs it');
  // Chromium refuses its sandbox to root.
  const args = process.getuid?.() === 0 ? ['--no-sandbox'] : [];
  launched ??= chromium.launch({ executablePath, args, timeout: 60_000 });
  return launched;
}

after(async () => (await launched)?.close());

/** A fresh browser profile: no cookies, no cache. */
export async function newContext(options = {}) {
  const context = await (await browser()).newContext({ viewport: { width: 1280, height: 800 }, colorScheme: 'dark', ...options });
  context.setDefaultTimeout(PATIENCE_MS);
  return context;
}
