// The same request as a command, as curl, and as Python.
import { SETTINGS } from '../settings';
import type { Output, StageSettings } from '../types';
import type { Options } from '../prompts/options';
import type { Request } from './body';
import { python, shell } from './quote';

/** Longer requests are put into a file. */
const MOST_PROMPTS_SHOWN = 20;
/** Linux takes no argument of more than 128 KiB. */
const LONGEST_SHOWN = 30_000;

export interface Source {
  /** The farm's address, as the browser has it. */
  origin: string;
  /** Whether calls need a key. */
  keyed: boolean;
  /** Name of a file of prompts that was dropped, and how it is read. */
  file: { name: string; options: Options } | null;
  /** Names of the pictures that were dropped. */
  picture: string | null;
  mask: string | null;
  /** What holds for all prompts that say nothing else. */
  negative: string;
  style: string;
}

interface Code {
  text: string;
  /** A file that the code reads, to be saved beside it. */
  file: { name: string; content: string } | null;
}

type Flag = (name: string, value: string | number | undefined | null) => void;

/** `darkroom submit …`. */
export function commandLine({ spec, prompts }: Request, source: Source): Code {
  const words = ['darkroom', 'submit'];
  // With `=`, a value may begin with a dash.
  const flag: Flag = (name, value) => {
    if (value !== undefined && value !== null && value !== '') words.push(`--${name}=${shell(String(value))}`);
  };
  if (!isLocal(source.origin)) flag('farm', source.origin);
  let file: Code['file'] = null;
  if (source.file) {
    flag('batch', source.file.name);
    batchFlags(source.file.options, flag, words);
  } else if (prompts.length > MOST_PROMPTS_SHOWN) {
    file = { name: 'prompts.txt', content: `${prompts.map((prompt) => prompt.text).join('\n')}\n` };
    flag('batch', file.name);
    flag('format', 'text');
  }
  specFlags(spec, flag, words);
  flag('negative', source.negative);
  flag('style', source.style);
  flag('image', source.picture);
  flag('mask', source.mask);
  if (!source.file && file === null) {
    // Behind `--` nothing is an option, however it begins.
    if (prompts.some((prompt) => prompt.text.startsWith('-'))) words.push('--');
    words.push(...prompts.map((prompt) => shell(prompt.text)));
  }
  return { text: wrap(words), file };
}

function batchFlags(options: Options, flag: Flag, words: string[]): void {
  flag('format', options.format);
  flag('column', options.column);
  if (options.labels === 'all') words.push('--labels');
  if (options.labels === 'none') words.push('--no-labels');
  if (options.comments) words.push('--comments');
}

function specFlags(spec: Request['spec'], flag: Flag, words: string[]): void {
  const { settings } = spec;
  flag('images', spec.images_per_prompt);
  flag('seed', spec.seed);
  flag('cascade', spec.cascade);
  flag('size', settings?.size);
  flag('width', settings?.width);
  flag('height', settings?.height);
  flag('from', settings?.start_stage);
  flag('fit', settings?.fit);
  flag('output-format', settings?.output ? outputFlag(settings.output) : null);
  for (const stage of settings?.stages ?? []) stageFlags(stage, flag);
  flag('name', spec.name);
  for (const [key, value] of Object.entries(spec.labels ?? {})) flag('label', `${key}=${value}`);
  flag('tenant', spec.tenant);
  if (spec.priority === 'interactive') words.push('--interactive');
  flag('deadline', typeof spec.deadline === 'string' ? spec.deadline : undefined);
  flag('max-workers', spec.max_workers);
  flag('max-failed', spec.max_failed_images);
  if (spec.no_reuse) words.push('--no-reuse');
}

function stageFlags(stage: StageSettings, flag: Flag): void {
  for (const setting of SETTINGS) {
    const value = stage[setting.key];
    if (value === undefined || value === null || (Array.isArray(value) && value.length === 0)) continue;
    flag(setting.flag, `${stage.stage}=${Array.isArray(value) ? value.join(',') : value}`);
  }
}

export function outputFlag(output: Output): string {
  const number = output.format === 'png' ? output.compression_level : output.quality;
  return `${output.format ?? 'png'}${number === undefined || number === null ? '' : `:${number}`}`;
}

/** Lines that are not too long. */
function wrap(words: string[]): string {
  const lines: string[] = [];
  let line = '';
  for (const part of words) {
    if (line !== '' && line.length + part.length > 88) {
      lines.push(line);
      line = `    ${part}`;
    } else line = line === '' ? part : `${line} ${part}`;
  }
  return [...lines, line].join(' \\\n');
}

/** `curl …`. */
export function curl(request: Request, source: Source): Code {
  const content = JSON.stringify(request, null, 2);
  const long = isLong(request, content);
  const lines = [`curl ${shell(`${source.origin}/api/v1/jobs`)}`];
  if (source.keyed) lines.push('    -H "Authorization: Bearer $DARKROOM_KEY"');
  lines.push("    -H 'Content-Type: application/json'");
  lines.push(long ? '    --data-binary @request.json' : `    --data-raw ${shell(content)}`);
  return { text: lines.join(' \\\n'), file: long ? { name: 'request.json', content } : null };
}

function isLong({ prompts }: Request, content: string): boolean {
  return prompts.length > MOST_PROMPTS_SHOWN || content.length > LONGEST_SHOWN;
}

/** Python with nothing but its own library. */
export function pythonCode(request: Request, source: Source): Code {
  const content = JSON.stringify(request);
  const long = isLong(request, content);
  const value = JSON.parse(content) as Parameters<typeof python>[0];
  const job = long ? 'json.load(open("request.json", encoding="utf-8"))' : python(value);
  const key = source.keyed ? '\n        "Authorization": "Bearer " + os.environ["DARKROOM_KEY"],' : '';
  const text = `import json${source.keyed ? '\nimport os' : ''}
import urllib.request

job = ${job}
request = urllib.request.Request(
    ${python(`${source.origin}/api/v1/jobs`)},
    data=json.dumps(job).encode(),
    headers={
        "Content-Type": "application/json",${key}
    },
)
with urllib.request.urlopen(request) as answer:
    print(json.load(answer)["job"]["id"])
`;
  return { text, file: long ? { name: 'request.json', content } : null };
}

/** Whether `darkroom` finds the farm by its folder. */
function isLocal(origin: string): boolean {
  return /^https?:\/\/(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?$/.test(origin);
}
