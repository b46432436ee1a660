// axe-core on the page as it is shown.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const RULES = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];

/** Asserts that axe has nothing to report; `name` says where. */
export async function assertAccessible(page, name) {
  // By the debugger's way, which the Content-Security-Policy does not concern.
  if (!(await page.evaluate(() => 'axe' in window))) await page.evaluate(AXE);
  const violations = await page.evaluate(async (rules) => {
    // A picture that fades in has no contrast yet. One that is not on the screen waits until it is.
    const faded = Promise.all(document.getAnimations().map((one) => one.finished.catch(() => {})));
    await Promise.race([faded, new Promise((resolve) => setTimeout(resolve, 1000))]);
    const { violations } = await window.axe.run(document, { runOnly: rules, resultTypes: ['violations'] });
    return violations.map(({ id, help, nodes }) => `${id}: ${help}\n  ${nodes.slice(0, 3).map((node) => node.html.slice(0, 200)).join('\n  ')}`);
  }, RULES);
  assert.deepEqual(violations, [], `axe on ${name}`);
}

/** Switches to a theme by the button in the bar. */
export async function useTheme(page, theme) {
  await page.getByRole('button', { name: /^Use the (dark|light) theme$/ }).waitFor();
  const button = page.getByRole('button', { name: `Use the ${theme} theme` });
  if (await button.isVisible()) await button.click();
  await page.getByRole('button', { name: `Use the ${theme === 'dark' ? 'light' : 'dark'} theme` }).waitFor();
}
