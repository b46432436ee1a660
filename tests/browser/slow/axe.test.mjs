// axe on every page, in both themes, on a wide screen and on a phone.
import { assertAccessible, useTheme } from '../support/axe.mjs';
import { contentIsThere } from '../support/content.mjs';
import { flow, logIn } from '../support/flow.mjs';
import { assertFits } from '../support/overflow.mjs';

const SCREENS = { 'wide screen': { width: 1360, height: 900 }, phone: { width: 360, height: 740 } };

/** What each page shows once its content is there. */
function pages(jobs) {
  const { done, failed, paused } = jobs;
  const image = (job, index) => `/jobs/${job.id}/images/${index}`;
  return {
    '/jobs': ['.jobs li .strip img'],
    '/jobs?state=failed&label=set%3Daxe': ['.jobs li'],
    '/submit': ['#cascade option', '#base-steps'],
    [`/jobs/${done.id}`]: ['.tile img', '#settings', '.box canvas'],
    [`/jobs/${done.id}?zoom=16`]: ['[role=listbox] canvas'],
    [`/jobs/${failed.id}`]: ['.tile[data-state="dead"]', '#failures'],
    [`/jobs/${paused.id}`]: ['.tile', '.why'],
    [image(done, 0)]: ['img[data-stage]', '#attempts', '#again'],
    [image(failed, 1)]: ['.alarm', '#attempts'],
    '/workers': ['[aria-label="Workers"] li table'],
    '/farm': ['.figures dd', '[aria-labelledby="coordinators"] tbody tr', '[aria-label="Pools, table"] tbody tr', '.chart', '[aria-label="Usage, table"] tbody tr', '[aria-label="Cost by job, table"] tbody tr'],
    '/failures': ['section.card li'],
    '/admin/keys': ['[aria-label="Keys, table"] tbody tr'],
    '/admin/tenants': ['[aria-label="Tenants"] li'],
    '/admin/retention': ['[aria-label="Policies"] tbody tr'],
    '/admin/audit': ['[aria-label="Entries of the audit"] tbody tr'],
    [`/compare?a=${done.id}:0:base&b=${done.id}:1:base`]: ['.pair img'],
    '/nowhere': ['main h1'],
    '/jobs/00000000-0000-7000-8000-000000000000': ['[role=alert]'],
  };
}

for (const [screen, viewport] of Object.entries(SCREENS)) {
  flow(`axe reports nothing on any page, in both themes, on a ${screen}`, { flags: ['--fake-failing-seed', '2'], context: { viewport }, loggedIn: false, refusals: true, timeoutMs: 600_000 }, async ({ farm, page }) => {
    const done = await farm.submit({ name: 'Done', seed: 10, images_per_prompt: 70, labels: { set: 'axe' } });
    const failed = await farm.submit({ name: 'Failed', seed: 1, images_per_prompt: 3, labels: { set: 'axe' } });
    await farm.ended(done);
    await farm.ended(failed);
    const paused = await farm.submit({ name: 'Paused', images_per_prompt: 500, settings: { size: 1024 } });
    await farm.api('PUT', `/jobs/${paused.id}/pause`);
    await farm.api('PATCH', '/tenants/studio', { quotas: { images_waiting: 1000 } });
    await farm.api('PUT', '/retention', { tenant: '', subject: 'pictures', outcome: 'done', seconds: 30 * 86400 });
    await page.goto(`${farm.url}/login`);
    await page.getByLabel('Key').waitFor();
    await assertAccessible(page, 'the login');
    await logIn(farm, page);
    for (const theme of ['dark', 'light']) {
      await page.goto(`${farm.url}/jobs`);
      await useTheme(page, theme);
      for (const [path, content] of Object.entries(pages({ done, failed, paused }))) {
        await page.goto(farm.url + path);
        await contentIsThere(page, content);
        const open = page.locator('main summary');
        for (let at = 0; at < await open.count(); at++) if (await open.nth(at).isVisible()) await open.nth(at).click();
        await assertAccessible(page, `${path}, ${theme}, ${screen}`);
        await assertFits(page, `${path}, ${screen}`);
      }
      for (const [path, button] of [['/admin/keys', 'New key'], ['/admin/tenants', 'New tenant'], ['/admin/retention', 'Set a policy'], [`/jobs/${done.id}`, 'Delete'], [`/jobs/${paused.id}`, 'Cancel'], [`/jobs/${done.id}/images/0`, 'Share']]) {
        await page.goto(farm.url + path);
        await page.getByRole('button', { name: button, exact: true }).click();
        await page.getByRole('dialog').waitFor();
        await assertAccessible(page, `the dialog ${button}, ${theme}, ${screen}`);
      }
    }
  });
}
