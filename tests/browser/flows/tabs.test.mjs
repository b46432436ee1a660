// Two tabs of one browser.
import assert from 'node:assert/strict';
import { flow, logIn } from '../support/flow.mjs';

const STREAM = /GET \/api\/v1\/events/;

flow('two tabs share one stream of events, and callers do not', { refusals: true }, async ({ farm, page, watch }) => {
  const studio = await farm.makeKey('studio', ['submit']);
  await page.getByText('No jobs yet').waitFor();
  const second = await page.context().newPage();
  await second.goto(`${farm.url}/jobs`);
  await second.getByText('No jobs yet').waitFor();

  await farm.submit({ name: 'For both' });
  for (const tab of [page, second]) await tab.getByRole('button', { name: 'Show 1 new job' }).waitFor();
  assert.equal(watch.count(STREAM), 1, 'one stream for both');

  // A tab whose updates are paused counts what happens, and shows it when they go on.
  await second.getByRole('button', { name: 'Pause updates' }).click();
  await farm.submit({ name: 'Meanwhile' });
  await page.getByRole('button', { name: 'Show 2 new jobs' }).waitFor();
  await second.getByText(/Updates are paused\. \d+ changes? waits?\./).waitFor();
  assert.equal(await second.getByRole('button', { name: 'Show 2 new jobs' }).count(), 0);
  await second.getByRole('button', { name: /^Resume updates/ }).click();
  await second.getByRole('button', { name: 'Show 2 new jobs' }).waitFor();

  // The tab that has the stream goes, and the other one goes on with its own.
  await page.close();
  await farm.submit({ name: 'For one' });
  await second.getByRole('button', { name: 'Show 3 new jobs' }).waitFor();
  assert.equal(watch.count(STREAM), 2);

  // The session of another caller begins in a third tab: what the second one had of the first caller goes.
  await second.getByRole('button', { name: 'Show 3 new jobs' }).click();
  await second.getByRole('link', { name: 'For one' }).waitFor();
  const third = await second.context().newPage();
  await logIn(farm, third, { key: studio.secret });
  for (const tab of [second, third]) {
    await tab.getByText('No jobs yet').waitFor();
    await tab.getByText('studio', { exact: true }).waitFor();
  }
  await farm.submit({ name: 'Not theirs' });
  await farm.submit({ name: 'Theirs' }, ['a red circle'], { key: studio.secret });
  for (const tab of [second, third]) {
    await tab.getByRole('button', { name: 'Show 1 new job' }).click();
    await tab.getByRole('link', { name: 'Theirs' }).waitFor();
    assert.equal(await tab.getByText('Not theirs').count(), 0);
  }
  assert.equal(watch.count(STREAM), 3, 'the other caller has a stream of its own');
});
