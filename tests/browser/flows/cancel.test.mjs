// Cancel a running job.
import assert from 'node:assert/strict';
import { flow } from '../support/flow.mjs';
import { openJob } from '../support/wall.mjs';

const IMAGES = 40;
const SENT = /PUT .*\/cancellation/;

flow('a cancelled job keeps its finished pictures and renders no others', { flags: ['--fake-step-ms', '100', '--batch', '1'] }, async ({ farm, page, watch }) => {
  const job = await farm.submit({ name: 'Too many', images_per_prompt: IMAGES });
  await openJob(page, farm, job);
  await page.locator('.tile[data-state="done"] img').first().waitFor();

  await page.getByRole('button', { name: 'Cancel', exact: true }).click();
  const dialog = page.getByRole('dialog', { name: 'Cancel this job?' });
  await dialog.getByRole('button', { name: 'Keep it running' }).click();
  await dialog.waitFor({ state: 'detached' });
  assert.equal(watch.count(SENT), 0, 'nothing happens before the answer');
  assert.equal((await farm.api('GET', `/jobs/${job.id}`)).state, 'active');

  await page.getByRole('button', { name: 'Cancel', exact: true }).click();
  await dialog.getByRole('button', { name: 'Cancel the job' }).click();
  await page.locator('.tile[data-state="cancelled"]').first().waitFor();
  await dialog.waitFor({ state: 'detached' });
  for (const state of ['dispatched', 'ready', 'waiting']) await page.locator(`.tile[data-state="${state}"]`).first().waitFor({ state: 'detached' });

  const ended = await farm.api('GET', `/jobs/${job.id}`);
  assert.equal(ended.state, 'cancelled');
  assert.ok(ended.images_done > 0 && ended.images_cancelled > 0, `${ended.images_done} done, ${ended.images_cancelled} cancelled`);
  assert.equal(ended.images_done + ended.images_cancelled, IMAGES, 'no image is left to render');
  assert.equal(watch.count(SENT), 1);

  // All finished pictures are there, also to a page that has none of them yet.
  await page.reload();
  const done = page.locator('.tile[data-state="done"]');
  await done.nth(ended.images_done - 1).locator('img').waitFor();
  assert.equal(await done.count(), ended.images_done);
  assert.equal(await page.locator('.tile[data-state="cancelled"]').count(), ended.images_cancelled);
  assert.equal(await page.locator('.tile[data-state="cancelled"] img').count(), 0);
});
