// What each flow checks of itself, on every page: no other host, no breach of the
// Content-Security-Policy, no errors. And that this would be seen.
import assert from 'node:assert/strict';
import { flow } from '../support/flow.mjs';

/** Each page, and what its window is called. */
const PAGES = {
  '/jobs': 'Jobs',
  '/submit': 'Submit',
  '/failures': 'Failures',
  '/farm': 'Farm',
  '/workers': 'Workers',
  '/admin/keys': 'Keys',
  '/admin/tenants': 'Tenants',
  '/admin/retention': 'Retention',
  '/admin/audit': 'Audit',
  '/compare': 'Compare',
  '/nowhere': 'Not found',
};

flow('no page asks another host or breaks the Content-Security-Policy', {}, async ({ farm, page, watch }) => {
  const name = '<img src=x onerror=alert(1)>';
  const job = await farm.submit({ name }, ['<script>alert(1)</script>']);
  await farm.ended(job);
  const pages = { ...PAGES, [`/jobs/${job.id}`]: name, [`/jobs/${job.id}/images/0`]: `Image 0 of ${name}`, [`/compare?a=${job.id}:0:base&b=${job.id}:0:base`]: 'Compare' };
  for (const [path, title] of Object.entries(pages)) {
    const answer = await page.goto(farm.url + path);
    assert.match(answer.headers()['content-security-policy'], /default-src 'none'/);
    await page.getByRole('heading', { level: 1 }).first().waitFor();
    await page.waitForFunction((wanted) => document.title === `${wanted} – Darkroom`, title);
  }
  watch.check();

  const noticed = page.waitForEvent('console', (message) => message.text().includes('Content Security Policy'));
  await page.evaluate(() => {
    document.head.append(Object.assign(document.createElement('script'), { textContent: 'window.broken = true' }));
    new Image().src = 'http://elsewhere.invalid/';
  });
  await noticed;
  assert.equal(await page.evaluate(() => window.broken), undefined, 'inline scripts do not run');
  assert.throws(() => watch.check(), /Content Security Policy/, 'a breach is noticed');
  watch.forget();
});
