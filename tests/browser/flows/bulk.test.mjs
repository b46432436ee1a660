// Cancel several jobs at once.
import assert from 'node:assert/strict';
import { flow } from '../support/flow.mjs';

const PUT = /PUT .*\/cancellation/;

flow('a command to several jobs says first how many it changes, and changes no others', { flags: ['--fake-step-ms', '200', '--batch', '1'], refusals: true }, async ({ farm, page, watch }) => {
  const short = await farm.submit({ name: 'Short', labels: { set: 'bulk' }, settings: { size: 64, stages: [{ stage: 'base', steps: 2 }] } });
  await farm.ended(short);
  const long = [];
  for (const name of ['First', 'Second', 'Third']) long.push(await farm.submit({ name, images_per_prompt: 200, labels: { set: 'bulk' } }));
  const other = await farm.submit({ name: 'Other', images_per_prompt: 200 });
  const states = async () => Promise.all([...long, short, other].map(async ({ id }) => (await farm.api('GET', `/jobs/${id}`)).state));

  await page.goto(`${farm.url}/jobs?label=set%3Dbulk`);
  const list = page.getByRole('list', { name: 'Jobs', exact: true });
  await list.getByRole('link', { name: 'Third' }).waitFor();
  assert.equal(await list.getByRole('listitem').filter({ has: page.getByRole('checkbox') }).count(), 4);

  // A selection of three, of which one has ended already.
  for (const name of ['First', 'Second', 'Short']) await page.getByRole('checkbox', { name: `Select ${name}` }).check();
  await page.getByText('3 selected:').waitFor();
  await page.getByRole('button', { name: 'Cancel', exact: true }).click();
  const dialog = page.getByRole('dialog', { name: 'Cancel jobs' });
  await dialog.getByText('2 jobs', { exact: true }).waitFor();
  await dialog.getByText('1 selected job stays as it is').waitFor();
  await dialog.getByRole('button', { name: 'Keep them' }).click();
  await dialog.waitFor({ state: 'detached' });
  assert.equal(watch.count(PUT), 0, 'nothing is sent before the answer');

  await page.getByRole('button', { name: 'Cancel', exact: true }).click();
  await dialog.getByRole('button', { name: 'Cancel 2 jobs' }).click();
  await page.getByText('2 jobs cancelled.').waitFor();
  assert.equal(watch.count(PUT), 2);
  // What runs is finished first.
  for (const job of long.slice(0, 2)) await farm.ended(job);
  assert.deepEqual(await states(), ['cancelled', 'cancelled', 'active', 'done', 'active']);

  // Without a selection, all that match the filter are meant. One of them is deleted meanwhile.
  await page.getByText('All that match the filter:').waitFor();
  await page.getByRole('button', { name: 'Cancel', exact: true }).click();
  await dialog.getByText('1 job', { exact: true }).waitFor();
  await farm.api('DELETE', `/jobs/${long[2].id}?cancel=true`);
  await dialog.getByRole('button', { name: 'Cancel 1 job' }).click();
  await dialog.getByText('1 job could not be changed').waitFor();
  await dialog.getByRole('link', { name: 'Third' }).waitFor();
  await dialog.getByRole('button', { name: 'Close' }).click();
  assert.equal((await farm.api('GET', `/jobs/${other.id}`)).state, 'active');
});
