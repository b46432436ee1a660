// Settings that a file gives a single prompt.
import type { Format, Output, Settings, StageSettings } from '../types';
import { compact, type Node } from './json';
import { SETTING_KEYS } from './names';
import { Refusal, shown } from './refusal';

const ACCEPTED = 'accepted: {"size": 256, "width": 256, "height": 128, "output": {"format": "jpeg", "quality": 90}, "stages": [{"stage": "base", "steps": 20}]}, all optional, or null';
const TOP = ['size', 'width', 'height', 'output', 'stages'];
const WHOLE: ReadonlySet<string> = new Set(['steps', 'noise_level', 'cache_interval']);
const FRACTION: ReadonlySet<string> = new Set(['eta', 'guidance_scale', 'strength']);

/** Settings from an object of JSON. Whether the values fit, the farm says. */
export function fromObject(node: Node, line: number): Settings {
  if (node.kind !== 'object') throw new Refusal(`settings is ${compact(node)}; ${ACCEPTED}`, line);
  for (const [key, value] of node.members) {
    if (['start', 'start_stage', 'fit'].includes(key)) {
      if (compact(value) === 'null' || compact(value) === '""') continue;
      throw new Refusal(`settings.${key} is ${compact(value)}; accepted: none, because all images of a job start alike`, line);
    }
    if (!TOP.includes(key)) throw new Refusal(`settings cannot be read: unknown field \`${key}\`; ${ACCEPTED}`, line);
    if (key === 'stages') checkStages(value, line);
  }
  return JSON.parse(compact(node)) as Settings;
}

function checkStages(node: Node, line: number): void {
  const stages = node.kind === 'array' ? node.items : null;
  if (stages === null) throw new Refusal(`settings cannot be read: stages is no list; ${ACCEPTED}`, line);
  for (const stage of stages) {
    const keys = stage.kind === 'object' ? stage.members.map(([key]) => key) : [];
    const unknown = keys.find((key) => key !== 'stage' && !(SETTING_KEYS as readonly string[]).includes(key));
    if (keys.length === 0 || unknown !== undefined) {
      throw new Refusal(`settings cannot be read: ${unknown === undefined ? 'a stage is no object' : `unknown field \`${unknown}\``}; ${ACCEPTED}`, line);
    }
  }
}

/** What a column called `settings.…` sets. */
export type Setter = (settings: Settings, cell: string, line: number) => void;

/** The setter of a column, by its name in small letters; `null` for a column that holds no setting. */
export function ofColumn(name: string, line: number): Setter | null {
  if (!name.startsWith('settings.')) return null;
  const rest = name.slice('settings.'.length);
  if (rest === 'size' || rest === 'width' || rest === 'height') {
    return (settings, cell, at) => (settings[rest] = whole(name, cell, at));
  }
  if (rest === 'output') return (settings, cell, at) => (settings.output = output(cell, at));
  const [stage, key] = [rest.slice(0, rest.indexOf('.')), rest.slice(rest.indexOf('.') + 1)];
  if (stage === '' || !rest.includes('.') || !(SETTING_KEYS as readonly string[]).includes(key)) {
    throw new Refusal(`the column ${shown(name)} is no setting; accepted: settings.size, settings.width, settings.height, settings.output, settings.STAGE.KEY with a KEY of ${SETTING_KEYS.join(', ')}`, line);
  }
  return (settings, cell, at) => setKey(settings, stage, key, name, cell, at);
}

function setKey(settings: Settings, stage: string, key: string, name: string, cell: string, line: number): void {
  settings.stages ??= [];
  let one = settings.stages.find((known) => known.stage === stage);
  if (!one) settings.stages.push((one = { stage }));
  const target = one as unknown as Record<string, StageSettings[keyof StageSettings]>;
  const text = cell.trim();
  if (WHOLE.has(key)) target[key] = whole(name, text, line);
  else if (FRACTION.has(key)) target[key] = fraction(name, text, line);
  else if (key === 'timesteps') target[key] = text.split(/[,\s]+/).filter((step) => step !== '').map((step) => whole(name, step, line));
  else target[key] = text;
}

function whole(name: string, cell: string, line: number): number {
  const text = cell.trim();
  if (!/^\d{1,10}$/.test(text) || Number(text) > 0xffffffff) throw new Refusal(`${name} is ${shown(cell)}; accepted: a whole number, or an empty cell`, line);
  return Number(text);
}

function fraction(name: string, cell: string, line: number): number {
  if (!/^-?(\d+\.?\d*|\.\d+)$/.test(cell)) throw new Refusal(`${name} is ${shown(cell)}; accepted: a number like 7.5, or an empty cell`, line);
  return Number(cell);
}

/** An output as flags and columns have it: `png:9`, `jpeg:90`, `webp`. */
export function output(text: string, line: number | null): Output {
  const [, name, number] = /^(png|jpeg|jpg|webp)(?::(\d{1,3}))?$/.exec(text.trim()) ?? [];
  const value = number === undefined ? null : Number(number);
  const fits = name === 'png' ? (value ?? 0) <= 9 : name === 'webp' ? value === null : value === null || (value >= 1 && value <= 100);
  if (name === undefined || !fits) {
    throw new Refusal(`settings.output is ${shown(text)}; accepted: png, png:LEVEL (0 to 9), jpeg, jpeg:QUALITY (1 to 100) or webp`, line);
  }
  const format: Format = name === 'jpg' ? 'jpeg' : (name as Format);
  if (value === null) return { format };
  return format === 'png' ? { format, compression_level: value } : { format, quality: value };
}
