// Cancel a running job.
import assert from 'node:assert/strict';
import { flow } from '../support/flow.mjs';
import { openJob } from '../support/wall.mjs';

flow('a cancelled job keeps its finished pictures and renders no others', { flags: ['--fake-step-ms', '100', '--batch', '1'] }, async ({ farm, page }) => {
  const job = await farm.submit({ name: 'Too many', images_per_prompt: 40 });
  await openJob(page, farm, job);
  await page.locator('.tile[data-state="done"] img').first().waitFor();

  await page.getByRole('button', { name: 'Cancel', exact: true }).click();
  const dialog = page.getByRole('dialog', { name: 'Cancel this job?' });
  await dialog.getByRole('button', { name: 'Keep it running' }).click();
  await dialog.waitFor({ state: 'detached' });
  assert.equal((await farm.api('GET', `/jobs/${job.id}`)).state, 'active', 'nothing happens before the answer');

  await page.getByRole('button', { name: 'Cancel', exact: true }).click();
  await dialog.getByRole('button', { name: 'Cancel the job' }).click();
  await page.locator('.tile[data-state="cancelled"]').first().waitFor();
  await page.locator('.tile[data-state="dispatched"]').first().waitFor({ state: 'detached' });

  const ended = await farm.api('GET', `/jobs/${job.id}`);
  assert.equal(ended.state, 'cancelled');
  assert.ok(ended.images_done > 0 && ended.images_cancelled > 0, `${ended.images_done} done, ${ended.images_cancelled} cancelled`);
  assert.equal(ended.images_done + ended.images_cancelled, 40);
  assert.equal(await page.locator('.tile[data-state="cancelled"]').count(), ended.images_cancelled);
});
