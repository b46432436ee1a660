// What a person fills in on the submit page. It stays while the page is open, also when the session
// ends and the same caller logs in again. Another caller begins with an empty one.
import { readPrompts, type PromptFile } from '../prompts/read';
import { USUAL, type Options } from '../prompts/options';
import { isBlank } from '../prompts/refusal';
import { SETTINGS, type Setting } from '../settings';
import type { CascadeStage, Fit, Format, JobSpec, Prompt, Settings, StageSettings, Upload } from '../types';
import { parseU64 } from '../u64';
import type { Request } from './body';

export interface Picture {
  upload: Upload;
  name: string;
  /** Address of the picture in this browser. */
  url: string;
}

/** A stage of the chosen cascade. */
type Stage = Pick<CascadeStage, 'name' | 'size'>;

/** A field that cannot be read, and why. */
export type Faults = Record<string, string>;

export class Draft {
  text = $state('');
  fileName = $state('');
  fileContent = $state.raw('');
  options = $state.raw<Options>(USUAL);
  file = $state.raw<PromptFile | null>(null);
  fileError = $state('');
  negative = $state('');
  style = $state('');
  images = $state('');
  seed = $state('');
  cascade = $state('');
  /** A stage's size, `WxH`, or empty for the largest. */
  size = $state('');
  name = $state('');
  labels = $state('');
  interactive = $state(false);
  deadline = $state('');
  maxWorkers = $state('');
  maxFailed = $state('');
  noReuse = $state(false);
  format = $state<Format | ''>('');
  formatNumber = $state('');
  fit = $state<Fit | ''>('');
  startStage = $state('');
  tenant = $state('');
  /** By stage and setting. */
  stages = $state<Record<string, Record<string, string>>>({});
  picture = $state.raw<Picture | null>(null);
  mask = $state.raw<Picture | null>(null);
  /** Name of the picture or mask that is on its way to the farm; empty: none is. */
  sending = $state('');
  /** Why the last picture or mask was not taken. */
  pictureError = $state('');
  /** For all stages; empty: the farm's. */
  strength = $state('');

  /** Reads the dropped file again, as after another option was chosen. */
  readFile(): void {
    if (this.fileName === '') return;
    try {
      this.file = readPrompts(this.fileName, this.fileContent, this.options);
      this.fileError = '';
    } catch (error) {
      this.file = null;
      this.fileError = error instanceof Error ? error.message : String(error);
    }
  }

  setFile(name: string, content: string): void {
    this.fileName = name;
    this.fileContent = content;
    this.options = USUAL;
    this.readFile();
  }

  dropFile(): void {
    this.fileName = this.fileContent = this.fileError = '';
    this.file = null;
  }

  dropPicture(): void {
    this.dropMask();
    if (this.picture) URL.revokeObjectURL(this.picture.url);
    this.picture = null;
    this.strength = this.startStage = this.fit = '';
  }

  dropMask(): void {
    if (this.mask) URL.revokeObjectURL(this.mask.url);
    this.mask = null;
  }

  setting(stage: string, key: string): string {
    return this.stages[stage]?.[key] ?? '';
  }

  set(stage: string, key: string, value: string): void {
    this.stages[stage] = { ...this.stages[stage], [key]: value };
  }

  /** The number of settings in the drawer that are not at their defaults. */
  get changed(): number {
    const own = [this.style, this.name, this.labels, this.deadline, this.maxWorkers, this.maxFailed, this.format, this.fit, this.startStage, this.tenant, this.interactive ? 'x' : '', this.noReuse ? 'x' : ''];
    const ofStages = Object.values(this.stages).flatMap((stage) => Object.values(stage));
    return [...own, ...ofStages].filter((value) => value.trim() !== '').length;
  }

  /** The prompts that were typed: one per line. */
  get typed(): string[] {
    return this.text.split(/\r\n?|\n/).filter((line) => !isBlank(line));
  }

  /** The request, and what cannot be read of it. */
  build(cascade: readonly Stage[]): { request: Request; faults: Faults } {
    const faults: Faults = {};
    const spec: JobSpec = {};
    const whole = (name: string, text: string, least = 0): number | undefined => {
      if (text.trim() === '') return undefined;
      const value = parseU64(text);
      if (typeof value !== 'number' || value < least) faults[name] = `${name} is ${JSON.stringify(text)}; accepted: a whole number of at least ${least}`;
      return typeof value === 'number' ? value : undefined;
    };
    if (this.cascade !== '') spec.cascade = this.cascade;
    if (!isBlank(this.name)) spec.name = this.name.trim();
    if (!isBlank(this.tenant)) spec.tenant = this.tenant.trim();
    if (this.interactive) spec.priority = 'interactive';
    if (this.noReuse) spec.no_reuse = true;
    const labels = this.#labels(faults);
    if (labels) spec.labels = labels;
    put(spec, 'images_per_prompt', whole('images per prompt', this.images, 1));
    put(spec, 'max_workers', whole('worker limit', this.maxWorkers, 1));
    put(spec, 'max_failed_images', whole('failed images allowed', this.maxFailed));
    if (this.seed.trim() !== '') {
      const seed = parseU64(this.seed);
      if (seed === null) faults.seed = `seed is ${JSON.stringify(this.seed)}; accepted: 0 to 18446744073709551615`;
      else spec.seed = seed;
    }
    if (this.deadline !== '') {
      const at = new Date(this.deadline);
      if (Number.isNaN(at.getTime())) faults.deadline = 'the deadline is no time';
      else spec.deadline = at.toISOString();
    }
    const settings = this.#settings(cascade, faults, whole);
    if (Object.keys(settings).length > 0) spec.settings = settings;
    return { request: { spec, prompts: this.#prompts() }, faults };
  }

  #prompts(): Prompt[] {
    const common: Partial<Prompt> = {};
    if (this.picture) common.image = this.picture.upload.sha256;
    if (this.picture && this.mask) common.mask = this.mask.upload.sha256;
    if (!isBlank(this.negative)) common.negative = this.negative;
    if (!isBlank(this.style)) common.style = this.style;
    const prompts: Prompt[] = this.file ? this.file.prompts : this.typed.map((text) => ({ text }));
    // What a file says of its prompt goes before what holds for all.
    return Object.keys(common).length === 0 ? prompts : prompts.map((prompt) => ({ ...common, ...prompt }));
  }

  #labels(faults: Faults): Record<string, string> | null {
    const labels: Record<string, string> = {};
    for (const line of this.labels.split('\n').filter((one) => !isBlank(one))) {
      const at = line.indexOf('=');
      if (at < 1) faults.labels = `${JSON.stringify(line)} is no label; accepted: KEY=VALUE, one per line`;
      else labels[line.slice(0, at).trim()] = line.slice(at + 1).trim();
    }
    return Object.keys(labels).length > 0 ? labels : null;
  }

  #settings(cascade: readonly Stage[], faults: Faults, whole: (name: string, text: string) => number | undefined): Settings {
    const settings: Settings = {};
    const shape = /^\s*(\d+)\s*[x×*]\s*(\d+)\s*$/i.exec(this.size);
    if (shape) {
      settings.width = Number(shape[1]);
      settings.height = Number(shape[2]);
      // The stage whose pictures are nearest in area, if that is not the last one; of two that are as near, the later.
      const edge = Math.sqrt(settings.width * settings.height);
      const far = (size: number): number => Math.abs(Math.log(size / edge));
      const size = cascade.map((stage) => stage.size).toReversed().toSorted((a, b) => far(a) - far(b))[0];
      if (size !== cascade.at(-1)?.size) put(settings, 'size', size);
    } else put(settings, 'size', whole('size', this.size));
    if (this.picture) {
      settings.start = this.startStage !== '' ? 'low-res' : this.mask ? 'masked' : 'picture';
      if (this.fit !== '') settings.fit = this.fit;
      if (this.startStage !== '') settings.start_stage = this.startStage;
    }
    if (this.format !== '') {
      const number = whole('output', this.formatNumber);
      settings.output = { format: this.format };
      if (number !== undefined && this.format === 'png') settings.output.compression_level = number;
      if (number !== undefined && this.format === 'jpeg') settings.output.quality = number;
    }
    const stages = cascade.map((stage) => this.#stage(stage.name, faults)).filter((stage) => Object.keys(stage).length > 1);
    if (stages.length > 0) settings.stages = stages;
    return settings;
  }

  #stage(stage: string, faults: Faults): StageSettings {
    const settings: StageSettings = { stage };
    const target = settings as unknown as Record<string, unknown>;
    for (const setting of SETTINGS) {
      if (setting.pictures && !this.picture) continue;
      const text = this.setting(stage, setting.key) || (setting.key === 'strength' ? this.strength : '');
      if (text.trim() === '') continue;
      const value = readSetting(setting, text.trim());
      if (value === null) faults[`${stage}.${setting.key}`] = `${setting.name} of ${stage} is ${JSON.stringify(text)}; accepted: ${setting.hint || 'a value of the list'}`;
      else target[setting.key] = value;
    }
    return settings;
  }
}

function put<T, K extends keyof T>(target: T, key: K, value: T[K] | undefined): void {
  if (value !== undefined) target[key] = value;
}

/** The value of a setting as it was typed; `null` if it cannot be read. */
function readSetting(setting: Setting, text: string): string | number | number[] | null {
  const whole = (part: string): number => (/^\d{1,9}$/.test(part) ? Number(part) : NaN);
  switch (setting.kind) {
    case 'word':
      return text;
    case 'whole':
      return Number.isNaN(whole(text)) ? null : whole(text);
    case 'number':
      return /^-?(\d+\.?\d*|\.\d+)$/.test(text) ? Number(text) : null;
    case 'list': {
      const numbers = text.split(/[,\s]+/).filter((part) => part !== '').map(whole);
      return numbers.some(Number.isNaN) ? null : numbers;
    }
  }
}

export let draft = new Draft();

/** Begins anew. Only while no form shows the draft. */
export function newDraft(): void {
  draft.dropPicture();
  draft = new Draft();
}
