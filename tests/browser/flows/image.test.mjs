// The page of one image: compare, render again, reuse, other formats, share, and a browser without
// WebCrypto.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { flow } from '../support/flow.mjs';
import { jobIn } from '../support/wall.mjs';

flow('an image is compared, rendered again, converted, shared and used again', {}, async ({ farm, page }) => {
  const job = await farm.submit({ name: 'Two', seed: 5, images_per_prompt: 2, settings: { size: 256 } });
  assert.equal((await farm.ended(job)).state, 'done');
  const here = `${farm.url}/jobs/${job.id}/images/0`;
  await page.goto(here);

  await page.getByText('Other formats').click();
  const saved = page.waitForEvent('download');
  await page.getByRole('button', { name: 'JPEG' }).click();
  const download = await saved;
  assert.match(download.suggestedFilename(), /\.jpg$/);
  const bytes = await readFile(await download.path());
  assert.deepEqual([...bytes.subarray(0, 3)], [0xff, 0xd8, 0xff], 'a JPEG');

  await page.getByRole('button', { name: 'Share' }).click();
  const dialog = page.getByRole('dialog', { name: 'Share this picture' });
  await dialog.getByRole('button', { name: 'Make a link' }).click();
  const link = await dialog.getByRole('textbox').inputValue();
  const shared = await fetch(link);
  assert.deepEqual([shared.status, shared.headers.get('content-type')], [200, 'image/png']);
  await dialog.getByRole('button', { name: 'Close' }).click();

  await page.getByRole('button', { name: 'Render again' }).click();
  await page.getByText('The same bytes: both files have SHA-256').waitFor({ timeout: 60_000 });

  await page.getByRole('link', { name: 'Compare stages' }).click();
  const line = page.getByRole('slider');
  await line.focus();
  await page.keyboard.press('End');
  assert.match(await line.getAttribute('aria-valuetext'), /^100 % image 0, base/);
  const clip = await page.getByAltText(/^Left/).evaluate((image) => image.style.clipPath);
  assert.match(clip, /^inset\(0(px|%)? 0(px|%)? 0(px|%)? 0(px|%)?\)$|^inset\(0(px|%)?\)$/, clip);
  assert.ok(await page.getByAltText(/^Right/).evaluate((image) => image.naturalWidth > 0));

  await page.goto(here);
  await page.getByRole('link', { name: 'Reuse settings' }).click();
  await page.waitForFunction(() => document.querySelector('textarea')?.value === 'a red circle');
  assert.equal(await page.getByLabel('Size').inputValue(), '256');

  // A picture of another shape, which ends with the second stage.
  await page.getByLabel('Size').selectOption('width × height …');
  await page.getByLabel('Width and height').fill('320x192');
  await page.getByRole('button', { name: /^Submit/ }).click();
  await page.waitForURL(/\/jobs\/[0-9a-f-]{36}/);
  const wide = await farm.ended({ id: jobIn(page) });
  assert.deepEqual([wide.state, wide.width, wide.height, wide.stages.at(-1).stage], ['done', 320, 192, 'sr256']);
});

flow('without WebCrypto the page says how a picture is verified instead', {}, async ({ farm, page }) => {
  const job = await farm.submit({ name: 'One' });
  await farm.ended(job);
  await page.addInitScript(() => Object.defineProperty(crypto, 'subtle', { value: undefined }));
  await page.goto(`${farm.url}/jobs/${job.id}/images/0`);
  await page.getByRole('button', { name: 'Verify' }).click();
  await page.getByText('This browser has no WebCrypto here').waitFor();
  await page.getByText('darkroom verify').waitFor();
});

flow('a farm with a price shows what jobs and tenants cost', { flags: ['--device-hour-price', 'EUR 3600', '--fake-step-ms', '50'] }, async ({ farm, page }) => {
  // One euro per second of device time.
  const job = await farm.submit({ name: 'Dear', images_per_prompt: 4 });
  const { device_seconds: seconds } = await farm.ended(job);
  assert.ok(seconds > 0.5, `${seconds} s`);
  await page.goto(`${farm.url}/farm`);
  for (const table of ['Cost by job, table', 'Usage, table']) {
    const at = page.getByRole('region', { name: table }).or(page.locator(`[aria-label="${table}"]`)).first();
    await at.getByRole('columnheader', { name: 'Money' }).waitFor();
    const told = await at.getByRole('cell').filter({ hasText: /€\d/ }).first().innerText();
    const money = Number(told.replace('€', ''));
    assert.ok(Math.abs(money - seconds) <= 0.02 + seconds / 100, `${table}: ${told} for ${seconds} s`);
  }
});
