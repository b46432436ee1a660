// Pause a job, and let it go on.
import assert from 'node:assert/strict';
import { flow } from '../support/flow.mjs';

flow('a paused job says why it waits, and goes on after it is resumed', { flags: ['--fake-step-ms', '100', '--batch', '1'] }, async ({ farm, page }) => {
  await page.getByText('No jobs yet').waitFor();
  const job = await farm.submit({ name: 'With a break', images_per_prompt: 200 });
  const row = page.getByRole('listitem').filter({ has: page.getByRole('link', { name: 'With a break' }) });
  await page.getByRole('button', { name: 'Show 1 new job' }).click();
  await row.getByRole('link').click();
  await page.getByRole('heading', { name: 'With a break' }).waitFor();

  await page.getByRole('button', { name: 'Pause', exact: true }).click();
  await page.getByText('The job is paused.', { exact: true }).waitFor();
  await page.getByRole('heading', { name: 'Why is this waiting?' }).waitFor();
  await page.locator('.tile[data-state="dispatched"]').first().waitFor({ state: 'detached' });
  const { state, images_done } = await farm.api('GET', `/jobs/${job.id}`);
  assert.equal(state, 'paused');

  // The list has it as paused, too, also behind a filter.
  await page.goto(`${farm.url}/jobs?state=paused`);
  await row.getByText('paused').first().waitFor();
  await row.getByRole('button', { name: 'Resume With a break' }).click();
  await row.getByText(/ left$/).waitFor();
  await farm.api('PUT', `/jobs/${job.id}/pause`);
  await row.getByRole('button', { name: 'Resume With a break' }).waitFor();
  await row.getByRole('link').click();

  await page.getByRole('button', { name: 'Resume', exact: true }).first().click();
  await page.getByText('The job is resumed.', { exact: true }).waitFor();
  await page.getByRole('heading', { name: 'Why is this waiting?' }).waitFor({ state: 'detached' });
  await page.locator('.tile[data-state="done"]').nth(Number(images_done)).waitFor();
  assert.equal((await farm.api('GET', `/jobs/${job.id}`)).state, 'active');
});
