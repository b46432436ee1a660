// Phone size.
import assert from 'node:assert/strict';
import { flow } from '../support/flow.mjs';
import { assertFits } from '../support/overflow.mjs';
import { tile } from '../support/wall.mjs';

const PHONE = { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true };

flow('the way from a prompt to a picture fits on a phone', { context: PHONE }, async ({ farm, page }) => {
  await assertFits(page, 'the list of jobs without jobs');
  await page.getByRole('link', { name: 'Submit', exact: true }).tap();
  await page.getByLabel(/^Each line is one prompt/).fill('a red circle with a name that is longer than a phone is wide, far longer\na blue square');
  await page.getByLabel('Size', { exact: true }).selectOption('64');
  await page.getByText('All settings').tap();
  await page.getByText('Device time').waitFor();
  await assertFits(page, 'the form');
  await page.getByRole('button', { name: 'Submit 2 prompts' }).tap();

  await tile(page, 1).locator('img').waitFor();
  await assertFits(page, 'the job');
  await tile(page, 1).tap();
  await page.getByRole('heading', { name: 'Image 1' }).waitFor();
  await page.getByRole('button', { name: 'Verify' }).tap();
  await page.getByText('Verified').waitFor();
  await assertFits(page, 'the image');
  await page.getByRole('link', { name: 'Previous' }).tap();
  await page.getByRole('heading', { name: 'Image 0' }).waitFor();

  const seen = {
    async Farm() {
      const { coordinators: [{ id }], storage } = await farm.api('GET', '/farm');
      const row = page.getByRole('region', { name: 'Coordinators' }).getByRole('row', { name: id });
      assert.match(await row.innerText(), /answers this page\s+leader\s/);
      await page.getByText(`Pictures are stored in ${storage}.`).waitFor();
    },
    async Workers() {
      const figure = (term) => page.locator('dl div', { hasText: term }).locator('dd').first();
      assert.match(await figure('Memory').innerText(), /^[\d.]+ [KMG]iB\sof [\d.]+ [KMGT]iB$/);
      assert.equal(await figure('Failed').innerText(), '0');
    },
  };
  for (const name of ['Farm', 'Workers', 'Failures', 'Jobs']) {
    await page.getByRole('link', { name, exact: true }).tap();
    await page.getByRole('heading', { name, level: 1 }).waitFor();
    await seen[name]?.();
    await assertFits(page, name);
  }
  await page.goto(`${farm.url}/admin/keys`);
  await page.getByRole('button', { name: 'New key' }).waitFor();
  await assertFits(page, 'the keys');
});
