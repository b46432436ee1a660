// Keyboard only.
import assert from 'node:assert/strict';
import { flow } from '../support/flow.mjs';
import { openJob } from '../support/wall.mjs';

const IMAGES = 30;
const MOST_TABS = 40;

/** Presses Tab until an element has the focus. */
async function tabTo(page, locator) {
  for (let pressed = 0; pressed < MOST_TABS; pressed++) {
    await page.keyboard.press('Tab');
    if (await locator.evaluate((element) => element === document.activeElement)) return;
  }
  assert.fail(`${MOST_TABS} times Tab do not lead to ${locator}`);
}

flow('everything on the way from a prompt to a picture works by keyboard', {}, async ({ farm, page }) => {
  await page.keyboard.press('Tab');
  assert.equal(await page.evaluate(() => document.activeElement?.textContent), 'Skip to the content');
  await page.keyboard.press('Enter');
  await tabTo(page, page.getByLabel('Prompt of a new picture'));
  await page.keyboard.type('a red circle');
  await page.keyboard.press('Enter');
  await page.waitForURL(/\/jobs\/[0-9a-f-]{36}/);
  await page.waitForFunction(() => document.activeElement?.tagName === 'H1');

  const job = await farm.submit({ name: 'By hand', images_per_prompt: IMAGES });
  await farm.ended(job);
  await openJob(page, farm, job);
  const wall = page.getByRole('listbox');
  const seen = page.getByTestId('seen');
  await tabTo(page, wall);
  await page.keyboard.press('ArrowRight');
  await seen.getByText('Cursor: 1,').waitFor();
  const active = await wall.getAttribute('aria-activedescendant');
  assert.equal(await page.locator(`#${active}`).getAttribute('aria-label'), 'Image 1: done');
  await page.keyboard.press('End');
  await seen.getByText(`Cursor: ${IMAGES - 1},`).waitFor();
  await page.keyboard.press('g');
  await page.keyboard.type('12');
  await page.keyboard.press('Enter');
  await seen.getByText('Cursor: 12,').waitFor();
  await page.keyboard.press('-');
  await page.getByRole('button', { name: '64', exact: true, pressed: true }).waitFor();

  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: 'Image 12' }).waitFor();
  await page.locator('img[data-stage]').waitFor();
  await page.keyboard.press('ArrowRight');
  await page.getByRole('heading', { name: 'Image 13' }).waitFor();
  await page.waitForFunction(() => document.title === 'Image 13 of By hand – Darkroom');
  for (const letter of ['j', 'k']) await page.keyboard.press(letter);
  assert.ok(page.url().endsWith('/images/13'), 'letters belong to the screen reader');
  await page.keyboard.press('Escape');
  await seen.getByText('Cursor: 13,').waitFor();

  const remove = page.getByRole('button', { name: 'Delete' });
  await tabTo(page, remove);
  await page.keyboard.press('Enter');
  await page.getByRole('dialog', { name: 'Delete this job?' }).waitFor();
  assert.ok(await page.evaluate(() => document.querySelector('dialog')?.contains(document.activeElement)), 'the focus is in the dialog');
  await page.keyboard.press('Escape');
  await page.getByRole('dialog').waitFor({ state: 'detached' });
  assert.ok(await remove.evaluate((element) => element === document.activeElement), 'the focus is back');

  // A key is shown once, so Escape does not close its dialog.
  await page.goto(`${farm.url}/admin/keys`);
  await page.getByRole('button', { name: 'New key' }).click();
  await page.getByLabel('Label').fill('By hand');
  await page.keyboard.press('Enter');
  const secret = page.getByRole('dialog', { name: 'The new key' });
  await secret.waitFor();
  for (let times = 0; times < 3; times++) await page.keyboard.press('Escape');
  assert.match(await secret.getByLabel(/^Key of/).inputValue(), /^dk_/);
  assert.ok(await secret.evaluate((dialog) => dialog.open && dialog.matches(':modal')));
  await secret.getByRole('button', { name: 'I have kept it' }).click();
  await secret.waitFor({ state: 'detached' });
});
