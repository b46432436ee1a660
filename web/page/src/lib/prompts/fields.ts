// Makes a prompt from a JSON value.
import type { Prompt } from '../types';
import { parseU64 } from '../u64';
import { compact, cut, type Node } from './json';
import { FIELDS, twice } from './names';
import type { Options } from './options';
import { Refusal, shown } from './refusal';
import { fromObject } from './settings';

const ACCEPTED = 'accepted: {"prompt": "…", "negative": "…", "images": 1, "seed": 1, "style": "…", "custom_id": "…", "labels": {"key": "…"}, "settings": {"size": 256}}, all but prompt optional';

export function fromJson(node: Node, line: number, options: Options): Prompt {
  if (node.kind === 'string') return { text: node.value, line };
  if (node.kind !== 'object') throw new Refusal(`it is ${cut(node)}, not a string or an object; ${ACCEPTED}`, line);
  refuseTwice(node.members, line);
  const prompt: Prompt = { text: '', line };
  const wanted = options.column || 'prompt';
  let text: string | null = null;
  for (const [key, value] of node.members) {
    if (key === wanted) text = string(key, value, line);
    else if (!take(prompt, key, value, line)) other(prompt, key, value, line, options, wanted);
  }
  if (text === null) {
    const what = wanted === 'prompt' ? `prompt is missing; ${ACCEPTED}, or another column` : `the key ${shown(wanted)} is missing; accepted: a string`;
    throw new Refusal(what, line);
  }
  prompt.text = text;
  return prompt;
}

/** Takes over a field of a prompt. `false`: the key is none. */
function take(prompt: Prompt, key: string, value: Node, line: number): boolean {
  switch (key) {
    case 'negative':
    case 'style':
    case 'custom_id': {
      const text = string(key, value, line);
      if (text !== null) prompt[key] = text;
      return true;
    }
    case 'image':
    case 'mask':
      if ((string(key, value, line) ?? '') !== '') throw pictured(key, string(key, value, line)!, line);
      return true;
    case 'images': {
      const images = number('images', value, '1 to 10000, or 0 or null to use the job\'s number of images', line);
      if (images !== null) prompt.images = Number(images);
      return true;
    }
    case 'seed': {
      const seed = number('seed', value, '0 to 18446744073709551615, or null', line);
      if (seed !== null) prompt.seed = seed;
      return true;
    }
    case 'labels':
      if (value.kind === 'object') {
        refuseTwice(value.members, line);
        for (const [name, label] of value.members) addLabel(prompt, name, label, line);
      } else if (value.kind !== 'word' || value.raw !== 'null') {
        throw new Refusal(`labels is ${cut(value)}; accepted: an object of strings, or null`, line);
      }
      return true;
    case 'settings':
      if (value.kind === 'word' && value.raw === 'null') return true;
      prompt.settings = fromObject(value, line);
      return true;
    default:
      return false;
  }
}

function other(prompt: Prompt, key: string, value: Node, line: number, options: Options, wanted: string): void {
  if (options.labels === 'all') addLabel(prompt, key, value, line);
  else if (options.labels === 'columns') {
    const known = [wanted, ...FIELDS, 'labels', 'settings'].join(', ');
    throw new Refusal(`the key ${shown(key)} is unknown; accepted: ${known}. Other keys can be kept as labels, or left out`, line);
  }
}

/** A file can name pictures on its author's disk, which a browser cannot open. */
export function pictured(field: string, path: string, line: number): Refusal {
  return new Refusal(`${field} is ${shown(path)}; this page cannot open pictures that a file names. \`darkroom submit --batch FILE\` can, or drop one picture here for all prompts`, line);
}

export function refuseTwice(members: [string, Node][], line: number): void {
  const key = twice(members.map(([name]) => name));
  if (key !== null) throw new Refusal(`the key ${shown(key)} occurs twice; accepted: each key once`, line);
}

export function addLabel(prompt: Prompt, key: string, value: Node, line: number): void {
  if (value.kind === 'word' && value.raw === 'null') return;
  prompt.labels ??= Object.create(null) as Record<string, string>;
  if (Object.hasOwn(prompt.labels, key)) throw new Refusal(`the label ${shown(key)} occurs twice; accepted: each once`, line);
  prompt.labels[key] = value.kind === 'string' ? value.value : compact(value);
}

export function string(field: string, value: Node, line: number): string | null {
  if (value.kind === 'string') return value.value;
  if (value.kind === 'word' && value.raw === 'null') return null;
  throw new Refusal(`${field} is ${cut(value)}; accepted: a string, or null`, line);
}

function number(field: string, value: Node, accepted: string, line: number): number | string | null {
  if (value.kind === 'word' && value.raw === 'null') return null;
  const parsed = value.kind === 'number' ? parseU64(value.raw) : null;
  if (parsed === null) throw new Refusal(`${field} is ${cut(value)}; accepted: a whole number, ${accepted}`, line);
  return parsed;
}
