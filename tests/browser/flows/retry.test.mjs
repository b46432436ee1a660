// Retry an image that failed, after the cause is gone.
import assert from 'node:assert/strict';
import { flow } from '../support/flow.mjs';
import { openJob, tile } from '../support/wall.mjs';

const FAILING = ['--fake-failing-seed', '2'];

flow('a failed image says why, and is rendered by a retry', { flags: FAILING, refusals: true }, async ({ farm, page, watch }) => {
  const job = await farm.submit({ name: 'One fails', seed: 1, images_per_prompt: 3 });
  assert.equal((await farm.ended(job)).state, 'failed');
  await page.getByRole('link', { name: 'Workers', exact: true }).click();
  await page.locator('dl div', { hasText: 'Failed' }).locator('dd').and(page.getByText(/^[1-9]\d*$/)).first().waitFor();
  await openJob(page, farm, job);
  await tile(page, 1).and(page.locator('[data-state="dead"]')).waitFor();
  await tile(page, 1).click();
  await page.getByText('ordered by the test').first().waitFor();
  const tries = await page.getByRole('cell', { name: 'failed' }).count();
  await page.getByRole('button', { name: 'Run this image again' }).click();
  await page.getByText('The image will run again.').first().waitFor();
  await page.getByRole('cell', { name: 'failed' }).nth(tries).waitFor();
  await page.getByText('ordered by the test').first().waitFor();
  await page.keyboard.press('Escape');

  // It fails as long as the farm does.
  farm.flags = [];
  await farm.kill();
  await page.getByText('The connection to the farm is lost').waitFor();
  await farm.start();
  await page.getByText('The connection to the farm is lost').waitFor({ state: 'detached' });

  await page.getByRole('button', { name: 'Retry these images' }).click();
  const dialog = page.getByRole('dialog', { name: 'Retry images' });
  await dialog.getByText('1 image', { exact: true }).waitFor();
  await dialog.getByRole('button', { name: 'Retry 1 image' }).click();
  await tile(page, 1).and(page.locator('[data-state="done"]')).waitFor();
  await tile(page, 1).locator('img').waitFor();

  const retried = await farm.ended(job);
  assert.deepEqual([retried.state, retried.images_done, retried.generation], ['done', 3, 3]);
  const versions = watch.requests.filter((one) => one.includes('/images/0/picture')).map((one) => /version=(\w+)/.exec(one)?.[1]);
  assert.equal(versions.at(-1), '3', 'pictures are asked for anew after a retry');
  assert.ok(versions.some((one) => one === '1' || one === '2'));
});
