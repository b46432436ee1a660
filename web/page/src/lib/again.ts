// Renders one image a second time, to compare the bytes.
import type { Request } from './request/body';
import type { Image, Job, JobSpec, Prompt, Settings, StageSettings } from './types';
import { jobTitle } from './job-title';

/** A job of this one image, with the same seed and settings, that reuses nothing. `sizes`: those of the cascade's stages. */
export function requestAgain(job: Job, image: Image, firstStage: string, sizes: ReadonlyMap<string, number>): Request {
  const own = image.settings;
  const size = sizes.get((own?.stages ?? job.settings).at(-1)?.stage ?? '');
  if (size === undefined) throw new Error('This farm does not have the cascade of the image, so it cannot be rendered again here.');
  const settings: Settings = {
    size,
    width: own?.width || job.width,
    height: own?.height || job.height,
    stages: (own?.stages ?? job.settings).map(withoutEmpty),
  };
  const output = own?.output ?? job.output;
  if (output) settings.output = withoutEmpty(output);
  if (job.fit) settings.fit = job.fit;
  if (image.image) {
    const begins = job.stages.find((stage) => stage.stage !== 'encode')?.stage ?? firstStage;
    settings.start = begins !== firstStage ? 'low-res' : image.mask ? 'masked' : 'picture';
    if (begins !== firstStage) settings.start_stage = begins;
  }
  const prompt: Prompt = { text: image.prompt, seed: image.seed };
  for (const key of ['negative', 'style', 'image', 'mask'] as const) {
    const value = image[key];
    if (value) prompt[key] = value;
  }
  const spec: JobSpec = { cascade: job.cascade_digest, name: `Again: image ${image.index} of ${jobTitle(job)}`.slice(0, 200), settings, no_reuse: true, images_per_prompt: 1 };
  // A sealed job's work is its tenant's own; any other tenant would have other digests.
  if (job.tenant) spec.tenant = job.tenant;
  return { spec, prompts: [prompt] };
}

function withoutEmpty<T extends object>(value: T): T {
  const kept = Object.entries(value).filter(([, one]) => one !== null && one !== undefined && !(Array.isArray(one) && one.length === 0));
  return Object.fromEntries(kept) as T & StageSettings;
}

/** What the comparison says. */
export function verdict(first: Image, second: Image): { same: boolean; words: string } {
  if (first.sha256 === second.sha256) {
    return { same: true, words: `The same bytes: both files have SHA-256 ${first.sha256.slice(0, 16)}….` };
  }
  const why = first.device_class === second.device_class
    ? 'Both were rendered on the same class of device, so they should be the same. Please report this.'
    : `The classes of device differ (${first.device_class || 'unknown'} and ${second.device_class || 'unknown'}); only the same class gives the same bytes.`;
  return { same: false, words: `Different bytes. ${why}` };
}
