// What tests look for on the page of a job.

/** The element of an image in the wall. */
export function tile(page, index) {
  return page.locator(`.tile[data-index="${index}"]`);
}

/** Writes down each picture that a tile shows: `[stage, width in pixels]`, in the order in which they come. */
export async function recordPictures(page, index) {
  await page.evaluate((wanted) => {
    window.pictures = [];
    const selector = `.tile[data-index="${wanted}"]`;
    const take = (image) => {
      const { stage } = image.closest(selector)?.dataset ?? {};
      if (stage) window.pictures.push([stage, image.naturalWidth]);
    };
    document.querySelectorAll(`${selector} img`).forEach(take);
    new MutationObserver((changes) => {
      for (const node of changes.flatMap((change) => [...change.addedNodes])) {
        if (node instanceof HTMLImageElement) take(node);
      }
    }).observe(document.body, { childList: true, subtree: true });
  }, index);
  return () => page.evaluate(() => window.pictures);
}

/** The most tiles that were in the document at once since this was called. */
export async function countTiles(page) {
  await page.evaluate(() => {
    window.mostTiles = 0;
    const look = () => (window.mostTiles = Math.max(window.mostTiles, document.querySelectorAll('.tile').length));
    new MutationObserver(look).observe(document.body, { childList: true, subtree: true });
    look();
  });
  return () => page.evaluate(() => window.mostTiles);
}

/** Opens the page of a job, and waits until its wall is there. */
export async function openJob(page, farm, job, query = '') {
  await page.goto(`${farm.url}/jobs/${job.id}${query}`);
  await page.getByRole('listbox').waitFor();
}

/** The id of the job that the page shows. */
export function jobIn(page) {
  return /\/jobs\/([0-9a-f-]{36})/.exec(page.url())[1];
}
