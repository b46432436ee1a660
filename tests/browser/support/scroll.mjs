// Scrolls the wall of a large job from its first image to its last, and counts what that costs.
import assert from 'node:assert/strict';
import { countTiles } from './wall.mjs';

const MOST_TILES = 200;
const MOST_SCRIPT_BYTES = 100_000;
const PER_SHEET = 256;
/** Zooms that draw sheets of thumbnails; larger ones have tiles. */
const SHEETS_UP_TO = 32;

/**
 * @param {{zooms: number[], steps: number, images: number, rendered?: boolean}} options the number of
 * steps to the end, and whether the last images have pictures already
 */
export async function scrollToTheEnd({ page, farm, watch, t }, job, { zooms, steps, images, rendered = false }) {
  const last = images.toLocaleString('en');
  const begun = performance.now();
  await page.goto(`${farm.url}/jobs/${job.id}`);
  await page.getByTestId('seen').getByText(`of ${last}.`).waitFor();
  t.diagnostic(`${last} images: first content after ${Math.round(performance.now() - begun)} ms`);
  const mostTiles = await countTiles(page);
  const wall = page.getByRole('listbox');
  for (const zoom of zooms) {
    await page.getByRole('group', { name: 'Size of the pictures' }).getByRole('button', { name: String(zoom), exact: true }).click();
    await wall.focus();
    await page.keyboard.press('Home');
    await page.getByTestId('seen').getByText('Images 0 to').waitFor();
    const before = watch.requests.length;
    const frames = await scroll(wall, steps);
    await page.getByTestId('seen').getByText(`to ${(images - 1).toLocaleString('en')} of ${last}.`).waitFor();
    if (rendered) await pictureIsShown(page, zoom);
    await page.keyboard.press('Home');
    await page.getByTestId('seen').getByText('Images 0 to').waitFor();
    await pictureIsShown(page, zoom);

    const asked = watch.requests.slice(before);
    const pictures = asked.filter((one) => one.includes('/picture')).length;
    const sheets = asked.filter((one) => one.includes('/sheet')).length;
    const tiles = await mostTiles();
    t.diagnostic(`zoom ${zoom}: frames of ${frames.median} ms, 95 % within ${frames.p95} ms; ${tiles} tiles, ${pictures} pictures, ${sheets} sheets, ${asked.length} requests`);
    assert.ok(tiles <= MOST_TILES, `${tiles} tiles in the document; at most ${MOST_TILES} are allowed`);
    if (zoom <= SHEETS_UP_TO) {
      assert.equal(pictures, 0, 'small pictures come in sheets');
      // Each sheet once, and again where pictures were still missing.
      assert.ok(sheets <= 2 * Math.ceil(images / PER_SHEET) + 10, `${sheets} sheets`);
    } else {
      assert.equal(sheets, 0);
      // What scrolls by is not asked for: at most what was seen at each stop.
      assert.ok(pictures <= Math.min(images, 10 * MOST_TILES), `${pictures} pictures`);
    }
  }
  assert.equal(watch.count(/\/images\?(?!page_size=1$)/), 0, 'no list of all images is read');
  const bytes = await watch.scriptBytes();
  t.diagnostic(`JavaScript: ${(bytes / 1000).toFixed(1)} kB gzipped`);
  assert.ok(bytes > 10_000 && bytes <= MOST_SCRIPT_BYTES, `${bytes} bytes of JavaScript`);
}

/** Goes from the top to the end in equal steps, one each frame. Returns how long frames took. */
async function scroll(wall, steps) {
  return wall.evaluate(async (scroller, number) => {
    const taken = [];
    let before = performance.now();
    for (let step = 1; step <= number; step++) {
      scroller.scrollTop = ((scroller.scrollHeight - scroller.clientHeight) * step) / number;
      await new Promise(requestAnimationFrame);
      const now = performance.now();
      taken.push(now - before);
      before = now;
    }
    taken.sort((a, b) => a - b);
    return { median: Math.round(taken[number >> 1]), p95: Math.round(taken[Math.floor(number * 0.95)]) };
  }, steps);
}

async function pictureIsShown(page, zoom) {
  if (zoom > SHEETS_UP_TO) {
    await page.locator('.tile:not([hidden]) img').first().waitFor();
    return;
  }
  // A colourful pixel on the canvas: a sheet is drawn there.
  await page.waitForFunction(() => {
    const canvas = document.querySelector('[role=listbox] canvas');
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    for (let at = 0; at < data.length; at += 4 * 97) {
      if (Math.max(data[at], data[at + 1], data[at + 2]) - Math.min(data[at], data[at + 1], data[at + 2]) > 100) return true;
    }
    return false;
  });
}
