// Paint a mask on a picture, and submit it.
import assert from 'node:assert/strict';
import { flow } from '../support/flow.mjs';
import { jobIn } from '../support/wall.mjs';

const EDGE = 128;

/** A plain picture as a PNG, made in the browser. */
async function picture(page, edge) {
  const encoded = await page.evaluate((size) => {
    const canvas = Object.assign(document.createElement('canvas'), { width: size, height: size });
    const context = canvas.getContext('2d');
    context.fillStyle = '#36c';
    context.fillRect(0, 0, size, size);
    return canvas.toDataURL('image/png').split(',')[1];
  }, edge);
  return Buffer.from(encoded, 'base64');
}

/** Keeps what the page uploads, because the browser does not tell the bodies of such requests. */
async function keepUploads(page) {
  await page.addInitScript(() => {
    window.uploads = [];
    const send = window.fetch;
    window.fetch = (url, options) => {
      if (options?.body instanceof Blob) window.uploads.push(options.body);
      return send(url, options);
    };
  });
}

/** The last upload as a picture: its size, and some of its pixels. */
async function lastUpload(page, points) {
  return page.evaluate(async (wanted) => {
    const picture = await createImageBitmap(window.uploads.at(-1));
    const canvas = Object.assign(document.createElement('canvas'), { width: picture.width, height: picture.height });
    const context = canvas.getContext('2d');
    context.drawImage(picture, 0, 0);
    return { size: [picture.width, picture.height], pixels: wanted.map(([x, y]) => [...context.getImageData(x, y, 1, 1).data]) };
  }, points);
}

/** The farm's answer to the next upload, once `act` has begun it. */
async function upload(page, act) {
  const [answer] = await Promise.all([page.waitForResponse((response) => response.url().endsWith('/api/v1/inputs')), act()]);
  assert.equal(answer.status(), 201);
  return { type: answer.request().headers()['content-type'], ...(await answer.json()) };
}

flow('a painted mask is uploaded as it was painted, and the job has it', {}, async ({ farm, page, watch }) => {
  await keepUploads(page);
  await page.goto(`${farm.url}/submit`);
  await page.getByLabel(/^Each line is one prompt/).fill('a red circle');
  await page.getByLabel('Size', { exact: true }).selectOption('64');
  const start = await upload(page, async () => {
    await page.getByTestId('picture-file').setInputFiles({ name: 'start.png', mimeType: 'image/png', buffer: await picture(page, EDGE) });
  });
  await page.getByRole('button', { name: 'Paint a mask' }).click();

  const dialog = page.getByRole('dialog', { name: 'Paint a mask' });
  const use = dialog.getByRole('button', { name: 'Use this mask' });
  assert.ok(await use.isDisabled(), 'an empty mask is none');
  const box = await dialog.locator('canvas').boundingBox();
  await page.mouse.move(box.x + box.width * 0.25, box.y + box.height / 2);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.75, box.y + box.height / 2, { steps: 4 });
  await page.mouse.up();
  await dialog.getByRole('application', { name: 'Mask, 1 stroke' }).waitFor();
  const sent = await upload(page, () => use.click());
  assert.deepEqual([sent.type, sent.width, sent.height], ['image/png', EDGE, EDGE]);

  const mask = await lastUpload(page, [[EDGE / 2, EDGE / 2], [2, 2], [EDGE - 3, EDGE - 3]]);
  assert.deepEqual(mask.size, [EDGE, EDGE], 'the mask has the size of the picture');
  assert.deepEqual(mask.pixels, [[255, 255, 255, 255], [0, 0, 0, 255], [0, 0, 0, 255]], 'white where it was painted, black elsewhere');
  await page.getByRole('img', { name: /^The mask/ }).waitFor();
  await page.getByText('Device time').waitFor();
  await page.getByRole('button', { name: 'Submit', exact: true }).click();
  await page.locator('.tile[data-state="done"] img').waitFor();

  assert.equal(watch.count(/POST .*\/inputs$/), 2, 'each picture is sent once');
  const { image } = await farm.api('GET', `/jobs/${jobIn(page)}/images/0`);
  assert.deepEqual([image.image, image.mask], [start.canonical_sha256, sent.canonical_sha256]);
});
