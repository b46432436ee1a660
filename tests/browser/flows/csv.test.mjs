// Drop a CSV.
import assert from 'node:assert/strict';
import { flow } from '../support/flow.mjs';
import { jobIn } from '../support/wall.mjs';

const GOOD = 'prompt,category\n"a circle, red",round\na blue square,edged\n';
const BAD = 'prompt,category\na red circle\n';

async function drop(page, name, text) {
  const transfer = await page.evaluateHandle(([file, content]) => {
    const data = new DataTransfer();
    data.items.add(new File([content], file, { type: 'text/csv' }));
    return data;
  }, [name, text]);
  await page.getByRole('form', { name: 'New job' }).dispatchEvent('drop', { dataTransfer: transfer });
}

flow('a dropped CSV becomes a job with its prompts and labels', {}, async ({ farm, page }) => {
  await page.goto(`${farm.url}/submit`);
  await drop(page, 'bad.csv', BAD);
  await page.getByRole('alert').getByText('line 2: the row has 1 cells').waitFor();
  assert.ok(await page.getByRole('button', { name: 'Submit' }).last().isDisabled(), 'a refused file cannot be sent');
  await page.getByRole('button', { name: 'Remove the file' }).click();

  await drop(page, 'shoot.csv', GOOD);
  await page.getByText('read as csv: 2 prompts').waitFor();
  await page.getByLabel('Size', { exact: true }).selectOption('64');
  await page.getByText('Device time').waitFor();
  assert.match(await page.locator('pre.code').innerText(), /--batch=shoot\.csv/);
  await page.getByRole('button', { name: 'Submit 2 prompts' }).click();
  await page.locator('.tile[data-state="done"]').nth(1).waitFor();

  const { images } = await farm.api('GET', `/jobs/${jobIn(page)}/images`);
  assert.deepEqual(images.map(({ prompt, labels }) => [prompt, labels.category]), [['a circle, red', 'round'], ['a blue square', 'edged']]);
});
