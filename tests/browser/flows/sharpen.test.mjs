// Submit a prompt, and watch its picture sharpen.
import assert from 'node:assert/strict';
import { flow } from '../support/flow.mjs';
import { jobIn, recordPictures, tile } from '../support/wall.mjs';

const STAGES = ['base', 'sr256', 'sr1024'];

flow('a picture sharpens from 64 to 256 to 1024 pixels in one tile', { flags: ['--fake-step-ms', '500'] }, async ({ farm, page }) => {
  await page.getByRole('link', { name: 'Submit', exact: true }).click();
  await page.getByLabel(/^Each line is one prompt/).fill('a red circle');
  await page.getByText('All settings').click();
  for (const stage of STAGES) await page.locator(`#${stage}-steps`).fill('4');
  await page.getByRole('button', { name: 'Submit', exact: true }).click();
  await page.waitForURL(/\/jobs\/[0-9a-f-]{36}/);

  const pictures = await recordPictures(page, 0);
  for (const stage of STAGES) await page.locator(`.tile[data-index="0"][data-stage="${stage}"]`).waitFor();
  await tile(page, 0).locator('img[class=""]').waitFor();
  const seen = await pictures();
  assert.deepEqual(seen.map(([stage]) => stage), STAGES, 'each stage is a state of its own');
  assert.equal(seen[0][1], 64, 'the first picture has 64 pixels');

  await tile(page, 0).click();
  for (const [stage, width] of [['base', 64], ['sr256', 256], ['sr1024', 1024]]) {
    await page.getByRole('group', { name: 'Stage' }).getByRole('button', { name: stage, exact: true }).click();
    await page.waitForFunction(([name, pixels]) => {
      const image = document.querySelector(`img[data-stage="${name}"]`);
      return image?.complete && image.naturalWidth === pixels;
    }, [stage, width]);
  }
  const { images_done } = await farm.api('GET', `/jobs/${jobIn(page)}`);
  assert.equal(images_done, 1);
});
