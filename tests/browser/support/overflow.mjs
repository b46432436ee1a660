// Whether the page is as wide as the screen.
import assert from 'node:assert/strict';

/** Asserts that nothing makes the page scroll sideways. */
export async function assertFits(page, name) {
  const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.ok(over <= 0, `${name} is ${over} pixels wider than the screen`);
}
