// Fills the submit page with what a job, or one image of it, was made from.
import { images as imagesApi, jobs } from '../api';
import { catalog } from '../catalog.svelte';
import { SETTINGS, shown } from '../settings';
import type { Job, Settings, StageSettings } from '../types';
import { toNumber } from '../u64';
import { outputFlag } from './code';
import type { Draft } from './draft.svelte';
import { jobTitle } from '../job-title';

const MOST_PROMPTS = 200;

/** Takes over from a job, or from its image. Returns a sentence for the reader. The draft stays as it is if something fails. */
export async function reuse(draft: Draft, id: string, index: string | null, signal: AbortSignal): Promise<string> {
  await catalog.need();
  if (catalog.error !== null) throw catalog.error;
  const job = await jobs.get(id, signal);
  const missing = catalog.cascade(job.cascade_digest) ? '' : ' This farm does not have its cascade any more, so another one is chosen.';
  if (index !== null) {
    const { image } = await imagesApi.get(id, index, signal);
    takeJob(draft, job);
    draft.text = image.prompt.replace(/\s*\n\s*/g, ' ');
    draft.negative = image.negative;
    draft.style = image.style ?? '';
    draft.seed = String(image.seed);
    draft.images = '';
    if (image.settings) takeSettings(draft, image.settings.stages ?? [], job.cascade_digest);
    const picture = image.image ? ' Drop its picture to start from once more.' : '';
    return `The settings are those of image ${index} of ${jobTitle(job)}.${picture}${missing}`;
  }
  const { images } = await imagesApi.list(id, { page_size: MOST_PROMPTS }, signal);
  takeJob(draft, job);
  const prompts = [...new Set(images.map((image) => image.prompt.replace(/\s*\n\s*/g, ' ')))];
  draft.text = prompts.join('\n');
  draft.negative = images[0]?.negative ?? '';
  draft.style = images[0]?.style ?? '';
  const all = images.length >= toNumber(job.images);
  return `The settings are those of ${jobTitle(job)}.${all ? '' : ` Only prompts of its first ${images.length} images are here.`}${missing}`;
}

function takeJob(draft: Draft, job: Job): void {
  draft.dropFile();
  // An empty choice is the farm's first cascade.
  const cascade = catalog.cascade(job.cascade_digest);
  draft.cascade = cascade && cascade !== catalog.cascades?.[0] ? cascade.name : '';
  draft.name = job.name;
  draft.labels = Object.entries(job.labels ?? {}).map(([key, value]) => `${key}=${value}`).join('\n');
  draft.seed = job.seed === null ? '' : String(job.seed);
  draft.interactive = job.priority === 'interactive';
  draft.deadline = draft.tenant = '';
  draft.maxWorkers = job.max_workers === null ? '' : String(job.max_workers);
  draft.maxFailed = job.max_failed_images === null ? '' : String(job.max_failed_images);
  draft.noReuse = job.no_reuse ?? false;
  const sizes = [...catalog.sizes(job.cascade_digest).values()];
  const square = job.width === job.height;
  const usual = square && job.width === sizes.at(-1);
  draft.size = usual || job.width === 0 ? '' : square && sizes.includes(job.width) ? String(job.width) : `${job.width}x${job.height}`;
  const [format, number] = outputFlag(job.output ?? { format: 'png' }).split(':');
  draft.format = format === 'png' && number === undefined ? '' : (format as Draft['format']);
  draft.formatNumber = number ?? '';
  takeSettings(draft, job.settings, job.cascade_digest);
}

/** Only what differs from the cascade's defaults, so that the drawer shows what was chosen. */
function takeSettings(draft: Draft, stages: NonNullable<Settings['stages']>, digest: string): void {
  draft.stages = {};
  const cascade = catalog.cascade(digest);
  for (const stage of stages) {
    const defaults: StageSettings = cascade?.stages.find((one) => one.name === stage.stage)?.defaults ?? { stage: stage.stage };
    for (const { key } of SETTINGS) {
      const value = shown(stage, key);
      if (value !== '' && value !== shown(defaults, key)) draft.set(stage.stage, key, value);
    }
  }
}
