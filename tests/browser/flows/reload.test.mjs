// Reload half-way.
import assert from 'node:assert/strict';
import { flow } from '../support/flow.mjs';
import { openJob } from '../support/wall.mjs';

const IMAGES = 5;

flow('a reload half-way shows what was there, and the rest as it comes', { flags: ['--fake-step-ms', '40', '--batch', '1'] }, async ({ farm, page, watch }) => {
  const job = await farm.submit({ name: 'Half-way', images_per_prompt: IMAGES });
  await openJob(page, farm, job);
  const size = page.getByRole('group', { name: 'Size of the pictures' }).getByRole('button', { name: '128', exact: true });
  await size.click();
  await page.waitForURL(/zoom=128/);
  const done = page.locator('.tile[data-state="done"]');
  await done.first().locator('img').waitFor();

  // A pause keeps the job half-way for as long as the page is looked at.
  await farm.api('PUT', `/jobs/${job.id}/pause`);
  await page.getByRole('heading', { name: 'Why is this waiting?' }).waitFor();
  await page.locator('.tile[data-state="dispatched"]').first().waitFor({ state: 'detached' });
  const { images_done: before } = await farm.api('GET', `/jobs/${job.id}`);
  assert.ok(before > 0 && before < IMAGES, `half-way: ${before} of ${IMAGES} images are done`);
  await done.nth(before - 1).locator('img').waitFor();

  await page.reload();
  await page.locator('.tile').nth(IMAGES - 1).waitFor();
  await done.nth(before - 1).locator('img').waitFor();
  assert.equal(await done.count(), before, 'what was done is there, and no more');
  assert.equal(await size.getAttribute('aria-pressed'), 'true', 'the size of the pictures stays');

  await farm.api('DELETE', `/jobs/${job.id}/pause`);
  await done.nth(IMAGES - 1).locator('img').waitFor();
  assert.equal((await farm.api('GET', `/jobs/${job.id}`)).state, 'done');
  assert.equal(watch.count(/^(POST|PUT|DELETE) .*\/jobs/), 0, 'a reload sends nothing again');
});
