// Scroll a large job from end to end, while it renders; slow/scroll.test.mjs has one of 100,000 images.
import { flow } from '../support/flow.mjs';
import { scrollToTheEnd } from '../support/scroll.mjs';

const IMAGES = 5000;

flow('a job of 5,000 images scrolls from end to end with at most 200 tiles', {}, async (all) => {
  const job = await all.farm.submit({ name: 'Large', images_per_prompt: IMAGES });
  await scrollToTheEnd(all, job, { zooms: [64, 128], steps: 100, images: IMAGES });
  await all.farm.api('PUT', `/jobs/${job.id}/cancellation`);
});
