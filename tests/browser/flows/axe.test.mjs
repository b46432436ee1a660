// axe on the main pages; slow/axe.test.mjs has all of them.
import { assertAccessible, useTheme } from '../support/axe.mjs';
import { flow } from '../support/flow.mjs';
import { openJob, tile } from '../support/wall.mjs';

flow('axe reports nothing on the main pages, in both themes, and the browser chooses between them', {}, async ({ farm, page }) => {
  const job = await farm.submit({ name: 'Some pictures', images_per_prompt: 3, labels: { set: 'axe' } });
  await farm.ended(job);
  // Dark, unless the browser prefers light.
  for (const [prefers, scheme] of [['light', 'light'], ['dark', 'dark']]) {
    await page.emulateMedia({ colorScheme: prefers });
    await page.waitForFunction((wanted) => getComputedStyle(document.documentElement).colorScheme === wanted, scheme);
  }
  for (const theme of ['dark', 'light']) {
    await page.goto(`${farm.url}/jobs`);
    await page.getByRole('link', { name: 'Some pictures' }).waitFor();
    await useTheme(page, theme);
    await assertAccessible(page, `the jobs, ${theme}`);
    await page.goto(`${farm.url}/submit`);
    await page.getByLabel(/^Each line is one prompt/).fill('a red circle');
    await page.getByText('Device time').waitFor();
    await page.getByText('All settings').click();
    await assertAccessible(page, `the form, ${theme}`);
    await openJob(page, farm, job);
    await tile(page, 2).locator('img').waitFor();
    await assertAccessible(page, `a job, ${theme}`);
    await page.goto(`${farm.url}/jobs/${job.id}/images/0`);
    await page.locator('img[data-stage]').waitFor();
    await assertAccessible(page, `an image, ${theme}`);
  }
});
