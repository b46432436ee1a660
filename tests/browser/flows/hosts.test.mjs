// What each flow checks of itself, on every page: no other host, no breach of the
// Content-Security-Policy, no errors. And that this would be seen.
import assert from 'node:assert/strict';
import { flow } from '../support/flow.mjs';

const PAGES = ['/jobs', '/submit', '/failures', '/farm', '/workers', '/admin/keys', '/admin/tenants', '/admin/retention', '/admin/audit', '/compare', '/nowhere'];

flow('no page asks another host or breaks the Content-Security-Policy', {}, async ({ farm, page, watch }) => {
  const job = await farm.submit({ name: '<img src=x onerror=alert(1)>' }, ['<script>alert(1)</script>']);
  await farm.ended(job);
  for (const path of [...PAGES, `/jobs/${job.id}`, `/jobs/${job.id}/images/0`, `/compare?a=${job.id}:0:base&b=${job.id}:0:base`]) {
    const answer = await page.goto(farm.url + path);
    assert.match(answer.headers()['content-security-policy'], /default-src 'none'/);
    await page.getByRole('heading', { level: 1 }).first().waitFor();
    await page.waitForLoadState('load');
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
