// Scroll a job of a million images from end to end while few of them have pictures.
import { flow } from '../support/flow.mjs';
import { scrollToTheEnd } from '../support/scroll.mjs';

const IMAGES = 1_000_000;
/** A prompt may have 10,000 images. */
const PER_PROMPT = 10_000;

flow('a job of a million images scrolls from end to end with at most 200 tiles', { timeoutMs: 600_000 }, async (all) => {
  const { farm, page, t } = all;
  const begun = performance.now();
  const prompts = Array.from({ length: IMAGES / PER_PROMPT }, (_, number) => `a red circle ${number}`);
  const job = await farm.submit({ name: 'A million', images_per_prompt: PER_PROMPT }, prompts);
  t.diagnostic(`accepted in ${Math.round(performance.now() - begun)} ms`);
  // The first ones have pictures; then the farm rests, so that the page has the machine.
  await page.goto(`${farm.url}/jobs/${job.id}?zoom=64`);
  await page.locator('.tile[data-state="done"]').nth(50).waitFor({ timeout: 120_000 });
  await farm.api('PUT', `/jobs/${job.id}/pause`, {});
  await page.locator('.tile[data-state="dispatched"]').first().waitFor({ state: 'detached' });
  await scrollToTheEnd(all, job, { zooms: [16, 32, 64, 128, 256], steps: 300, images: IMAGES });
});
