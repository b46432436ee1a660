// Makes the README's screenshots in docs/, with real pictures of the demo cascade. Runs only
// for `make screenshots`, because they change with every rendering of text.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { flow } from './support/flow.mjs';
import { openJob } from './support/wall.mjs';

const DOCS = fileURLToPath(new URL('../../docs/', import.meta.url));
const LARGEST = 200_000;
const RENDER_MS = 15 * 60_000;
const COLOURS = ['red', 'cyan', 'orange', 'blue', 'pink', 'yellow', 'green', 'purple'];
const SHAPES = ['circle', 'heart', 'triangle', 'star', 'ring', 'diamond', 'cross', 'square'];
const PLACES = ['above', 'to the left of', 'below', 'to the right of'];
const GROUNDS = ['cream', 'navy', 'white', 'mint', 'gray', 'black'];

/** Prompts of the kind that the demo cascade knows, from a number on. */
function prompts(from, number) {
  return Array.from({ length: number }, (_, more) => {
    const at = from + more;
    const thing = (step) => `${COLOURS[(at + 3 * step) % 8]} ${SHAPES[(5 * at + 2 * step) % 8]}`;
    const first = thing(0);
    const article = first.startsWith('o') ? 'an' : 'a';
    const second = thing(1);
    return `${article} ${first} ${PLACES[(at >> 1) % 4]} ${second.startsWith('o') ? 'an' : 'a'} ${second} on a ${GROUNDS[at % 6]} background`;
  });
}

async function shoot(page, name) {
  await page.mouse.move(0, 0);
  // Animations off the screen do not run, so this waits at most two seconds.
  const still = () => Promise.all(document.getAnimations().map((one) => one.finished.catch(() => {})));
  await Promise.race([page.evaluate(still), new Promise((resolve) => setTimeout(resolve, 2000))]);
  const path = `${DOCS}${name}.png`;
  await page.screenshot({ path });
  // A palette of 256 colours halves them. Dithering would add noise.
  execFileSync('convert', [path, '-strip', '+dither', '-colors', '256', '-define', 'png:compression-level=9', `PNG8:${path}`]);
  assert.ok(statSync(path).size < LARGEST, `${path} has ${statSync(path).size} bytes; at most ${LARGEST} are wanted`);
}

const options = {
  flags: ['--renderer', 'model'],
  context: { viewport: { width: 1200, height: 760 } },
  timeoutMs: 2 * RENDER_MS,
};

flow('the screenshots show real pictures', options, async ({ farm, page }) => {
  const submit = (name, seed, labels, texts) => farm.submit({ name, seed, labels, settings: { size: 1024 } }, texts);
  const posters = await submit('Posters for the fair', 7, { client: 'fair', set: 'posters' }, prompts(0, 6));
  const cards = await submit('Card deck, first proof', 21, { client: 'cards' }, prompts(9, 4));
  for (const job of [posters, cards]) assert.equal((await farm.ended(job, RENDER_MS)).state, 'done');
  const later = await submit('Catalogue, autumn', 90, { client: 'shop' }, prompts(20, 12));
  await farm.api('PUT', `/jobs/${later.id}/pause`);
  const running = await submit('Shapes for the museum', 40, { client: 'museum', set: 'wall' }, prompts(3, 32));

  await openJob(page, farm, running, '?zoom=128');
  await page.locator('.tile[data-stage="sr1024"] img').nth(11).waitFor({ timeout: RENDER_MS });
  await shoot(page, 'page-job');
  await page.goto(`${farm.url}/jobs`);
  await page.locator('.strip img').nth(2).waitFor();
  await page.getByText(/ left$/).waitFor();
  await shoot(page, 'page-jobs');
  await page.goto(`${farm.url}/jobs/${posters.id}/images/1`);
  await page.waitForFunction(() => document.querySelector('img[data-stage]')?.naturalWidth === 1024);
  await page.getByRole('button', { name: 'Verify' }).click();
  await page.getByText('Verified').waitFor();
  await shoot(page, 'page-image');
});
