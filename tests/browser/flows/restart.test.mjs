// Kill the server, and start it again.
import assert from 'node:assert/strict';
import { flow } from '../support/flow.mjs';
import { openJob } from '../support/wall.mjs';

const IMAGES = 5;

flow('a page survives the death of its farm without a reload', { flags: ['--fake-step-ms', '60', '--batch', '1'], refusals: true }, async ({ farm, page, watch }) => {
  const job = await farm.submit({ name: 'Survives', images_per_prompt: IMAGES });
  await openJob(page, farm, job);
  await page.evaluate(() => (window.notReloaded = true));
  const done = page.locator('.tile[data-state="done"]');
  await done.first().locator('img').waitFor();

  const before = await farm.api('GET', `/jobs/${job.id}`);
  assert.equal(before.state, 'active', 'the job is half-way');
  const shown = await done.count();
  await farm.kill();
  const lost = page.getByText('The connection to the farm is lost');
  await lost.waitFor();
  const known = await done.count();
  assert.equal(await page.locator('.tile').count(), IMAGES, 'what was known stays');
  assert.ok(known >= shown && known < IMAGES, `${known} of ${IMAGES} are shown as done after the farm died, ${shown} before`);
  const streams = watch.count(/\/events/);

  await farm.start();
  await lost.waitFor({ state: 'detached' });
  await done.nth(IMAGES - 1).locator('img').waitFor();
  assert.ok(watch.count(/\/events/) > streams, 'the stream was opened anew');
  assert.equal(await page.evaluate(() => window.notReloaded), true, 'the page was not loaded anew');
  const after = await farm.api('GET', `/jobs/${job.id}`);
  assert.deepEqual([after.state, after.images_done, after.generation], ['done', IMAGES, before.generation], 'the same job went on');
});
