// Log in, expire, log out; a link with a key in an open tab; and another tenant's address.
import assert from 'node:assert/strict';
import { flow, logIn } from '../support/flow.mjs';

flow('a session begins with a key, ends with it, and goes on where it ended', { loggedIn: false, refusals: true }, async ({ farm, page }) => {
  const { secret, id } = await farm.makeKey('studio', ['submit']);
  await page.goto(`${farm.url}/jobs?state=done`);
  await page.getByLabel('Key').fill('dk_wrong_wrong');
  await page.getByRole('button', { name: 'Log in' }).click();
  await page.getByRole('alert').waitFor();
  await page.getByLabel('Key').fill(secret);
  await page.getByRole('button', { name: 'Log in' }).click();
  await page.getByRole('heading', { name: 'Jobs' }).waitFor();
  assert.equal(page.url(), `${farm.url}/jobs?state=done`, 'where the login was asked for');
  const [cookie] = await page.context().cookies();
  assert.deepEqual([cookie.httpOnly, cookie.sameSite], [true, 'Strict']);
  assert.equal(await page.getByRole('link', { name: 'Admin' }).count(), 0, 'what the key does not allow is not offered');

  await farm.api('DELETE', `/keys/${id}`);
  await page.getByRole('link', { name: 'Failures', exact: true }).click();
  await page.getByText('The session has ended').waitFor();
  await page.getByLabel('Key').fill(farm.key);
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: 'Failures' }).waitFor();

  await page.getByRole('button', { name: 'Log out' }).click();
  await page.getByLabel('Key').waitFor();
  await page.goto(`${farm.url}/jobs`);
  await page.getByLabel('Key').waitFor();
  assert.deepEqual(await page.context().cookies(), [], 'the cookie is gone');

  await logIn(farm, page);
  assert.ok(!page.url().includes('dk_'), 'the key is not in the address');
  assert.ok(!(await page.evaluate(() => JSON.stringify({ ...localStorage, ...sessionStorage }))).includes('dk_'), 'nor kept');
});

flow('a link with a key that is pasted into an open tab logs in, and nothing of the last caller stays', { loggedIn: false, refusals: true }, async ({ farm, page }) => {
  const studio = await farm.makeKey('studio', ['submit']);
  const rivals = await farm.makeKey('rivals', ['submit']);
  const prompts = page.getByLabel(/^Each line is one prompt/);
  await logIn(farm, page, { key: studio.secret, path: '/submit' });
  await page.evaluate(() => (window.notReloaded = true));
  await prompts.fill('a secret of the studio');
  await page.getByLabel('Negative prompt').fill('another one');

  await page.goto(`${farm.url}/submit#key=dk_wrong_wrong`);
  await page.getByText('The key in the address was not accepted.').waitFor();
  await page.getByText('studio', { exact: true }).waitFor();
  assert.equal(await prompts.inputValue(), 'a secret of the studio', 'a refused key changes nothing');
  assert.equal(page.url(), `${farm.url}/submit`, 'the key is not in the address');

  await page.goto(`${farm.url}/submit#key=${rivals.secret}`);
  await page.getByText('rivals', { exact: true }).waitFor();
  assert.equal(page.url(), `${farm.url}/submit`, 'the key is not in the address');
  assert.equal(await page.evaluate(() => window.notReloaded), true, 'the page was not loaded anew');
  assert.deepEqual([await prompts.inputValue(), await page.getByLabel('Negative prompt').inputValue()], ['', '']);
  assert.equal((await farm.api('GET', '/session', undefined, { key: rivals.secret })).tenant, 'rivals');

  // Nor does it stay when the session ends and somebody else logs in.
  await prompts.fill('a secret of the rivals');
  await farm.api('DELETE', `/keys/${rivals.id}`);
  await page.getByRole('link', { name: 'Failures', exact: true }).click();
  await page.getByText('The session has ended').waitFor();
  await page.getByLabel('Key').fill(studio.secret);
  await page.keyboard.press('Enter');
  await page.getByRole('link', { name: 'Submit', exact: true }).click();
  assert.equal(await prompts.inputValue(), '', 'another caller does not find it');
});

flow("another tenant's job looks like one that does not exist", { loggedIn: false, refusals: true }, async ({ farm, page }) => {
  const ours = await farm.makeKey('studio', ['submit']);
  const theirs = await farm.makeKey('rivals', ['submit']);
  const job = await farm.submit({ name: 'Secret' }, ['a red circle'], { key: ours.secret });
  const none = '00000000-0000-7000-8000-000000000000';

  async function saidOf(id, path = '') {
    await page.goto(`${farm.url}/jobs/${id}${path}`);
    const said = await page.getByRole('alert').innerText();
    return `${await page.getByRole('heading', { level: 1 }).innerText()} ${said}`.replaceAll(id, 'ID');
  }
  await logIn(farm, page, { key: theirs.secret });
  assert.equal(await saidOf(job.id), await saidOf(none));
  assert.equal(await saidOf(job.id, '/images/0'), await saidOf(none, '/images/0'));
  await page.goto(`${farm.url}/jobs`);
  await page.getByText('No jobs yet').waitFor();
  assert.equal(await page.getByText('Secret').count(), 0);

  await page.getByRole('button', { name: 'Log out' }).click();
  await page.getByLabel('Key').fill(ours.secret);
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: 'Jobs' }).waitFor();
  await page.goto(`${farm.url}/jobs/${job.id}`);
  await page.getByRole('heading', { name: 'Secret' }).waitFor();
});
