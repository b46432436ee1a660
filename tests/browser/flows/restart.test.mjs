// Kill the server, and start it again.
import assert from 'node:assert/strict';
import { flow } from '../support/flow.mjs';
import { openJob } from '../support/wall.mjs';

const IMAGES = 4;

flow('a page survives the death of its farm without a reload', { flags: ['--fake-step-ms', '60', '--batch', '1'], refusals: true }, async ({ farm, page }) => {
  const job = await farm.submit({ name: 'Survives', images_per_prompt: IMAGES });
  await openJob(page, farm, job);
  await page.evaluate(() => (window.notReloaded = true));
  await page.locator('.tile[data-state="done"]').first().waitFor();

  await farm.kill();
  const lost = page.getByText('The connection to the farm is lost');
  await lost.waitFor();
  assert.equal(await page.locator('.tile').count(), IMAGES, 'what was known stays');

  await farm.start();
  await lost.waitFor({ state: 'detached' });
  await page.locator('.tile[data-state="done"] img').nth(IMAGES - 1).waitFor();
  assert.equal(await page.evaluate(() => window.notReloaded), true);
  assert.equal((await farm.api('GET', `/jobs/${job.id}`)).state, 'done');
});
