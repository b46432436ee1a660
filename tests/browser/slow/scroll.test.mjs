// Scroll a job of 100,000 images from end to end, at every zoom, with all its pictures there.
import assert from 'node:assert/strict';
import { flow } from '../support/flow.mjs';
import { scrollToTheEnd } from '../support/scroll.mjs';

const IMAGES = 100_000;
/** A prompt may have 10,000 images. */
const PROMPTS = ['a red circle', 'a blue square', 'a green star', 'a pink heart', 'a cyan ring', 'a brown cross', 'an orange diamond', 'a purple triangle', 'a yellow circle', 'a black star'];
const RENDER_MS = 30 * 60_000;

flow('a job of 100,000 images scrolls from end to end with at most 200 tiles', { timeoutMs: RENDER_MS + 600_000 }, async (all) => {
  const begun = performance.now();
  const job = await all.farm.submit({ name: 'Very large', images_per_prompt: IMAGES / PROMPTS.length }, PROMPTS);
  const ended = await all.farm.ended(job, RENDER_MS);
  assert.equal(ended.images_done, IMAGES);
  all.t.diagnostic(`rendered in ${Math.round((performance.now() - begun) / 1000)} s`);
  await scrollToTheEnd(all, job, { zooms: [16, 32, 64, 128, 256], steps: 300, images: IMAGES, rendered: true });
});
