// Whether a page shows what it is about.

/** Waits until everything that these selectors name is there, and nothing is loading any more. */
export async function contentIsThere(page, selectors) {
  for (const selector of selectors) await page.locator(selector).first().waitFor({ state: 'attached' });
  await page.waitForFunction(() => !document.querySelector('main .loading, main [aria-busy="true"]') && [...document.querySelectorAll('main img')].every((image) => image.complete));
}
