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

  const before = await done.count();
  await page.reload();
  await page.locator('.tile').nth(IMAGES - 1).waitFor();
  await done.nth(before - 1).locator('img').waitFor();
  assert.ok(await done.count() >= before, `${before} images were done before`);
  assert.equal(await size.getAttribute('aria-pressed'), 'true', 'the size of the pictures stays');

  await done.nth(IMAGES - 1).locator('img').waitFor();
  assert.equal((await farm.api('GET', `/jobs/${job.id}`)).state, 'done');
  assert.ok(watch.count(/POST .*\/jobs/) === 0, 'a reload sends nothing again');
});
