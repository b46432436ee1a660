// Captions of COCO: an object with `annotations`, read as `darkroom submit --batch` reads them.
import type { Prompt } from '../types';
import { addLabel, refuseTwice, string } from './fields';
import { cut, type JsonReader, type Node } from './json';
import type { Options } from './options';
import { Refusal, shown } from './refusal';

/** Keys that such a file may have beside its annotations. */
const KEYS = new Set(['info', 'images', 'licenses', 'categories', 'type']);

export function readCoco(reader: JsonReader, options: Options, notes: string[], accept: (prompt: Prompt) => void): void {
  reader.expect('{', 'COCO captions: an object with `annotations`');
  const keys = new Set<string>();
  for (let key = reader.key(true); key !== null; key = reader.key(false)) {
    if (keys.has(key)) throw new Refusal(`the key ${shown(key)} occurs twice`, reader.line);
    keys.add(key);
    if (key === 'annotations') {
      reader.array('an array of annotations', (node, line) => accept(annotation(node, line, options)));
      continue;
    }
    if (key === 'prompt' || key === 'prompts') {
      throw new Refusal(`the file is one JSON object with the key ${shown(key)}; accepted: an array of strings and objects, JSON lines (one object a line), or COCO captions`, reader.line);
    }
    if (!KEYS.has(key)) notes.push(`line ${reader.line}: the key ${shown(key)} is ignored`);
    reader.value();
  }
  if (!keys.has('annotations')) {
    throw new Refusal(`it is a JSON object without \`annotations\` (its keys: ${[...keys].sort().map(shown).join(', ')}); accepted: an array of prompts, COCO captions, or JSON lines`);
  }
}

function annotation(node: Node, line: number, options: Options): Prompt {
  if (node.kind !== 'object') throw new Refusal(`the annotation is ${cut(node)}; accepted: {"image_id": 1, "id": 2, "caption": "…"}`, line);
  refuseTwice(node.members, line);
  const prompt: Prompt = { text: '', line };
  let text: string | null = null;
  for (const [key, value] of node.members) {
    if (key === 'caption') text = string(key, value, line);
    else if (key === 'id') prompt.custom_id = id(key, value, line);
    else if (key === 'image_id') addLabel(prompt, key, { kind: 'string', value: id(key, value, line), raw: '' }, line);
    else if (options.labels === 'all') addLabel(prompt, key, value, line);
    else if (options.labels === 'columns') throw new Refusal(`the key ${shown(key)} is unknown; accepted: image_id, id, caption. Other keys can be kept as labels, or left out`, line);
  }
  if (text === null) {
    throw new Refusal("the annotation has no `caption`; accepted: COCO's captions, not its boxes (captions_….json, not instances_….json)", line);
  }
  for (const [key, isMissing] of [['id', prompt.custom_id === undefined], ['image_id', prompt.labels?.image_id === undefined]] as const) {
    if (isMissing) throw new Refusal(`the annotation has no \`${key}\`; accepted: COCO captions, each with image_id, id and caption`, line);
  }
  prompt.text = text;
  return prompt;
}

/** An id: a whole number, or a string. */
function id(field: string, value: Node, line: number): string {
  if (value.kind === 'string' && value.value !== '') return value.value;
  if (value.kind === 'number' && /^-?\d+$/.test(value.raw) && BigInt.asIntN(64, BigInt(value.raw)) === BigInt(value.raw)) return BigInt(value.raw).toString();
  throw new Refusal(`${field} is ${cut(value)}; accepted: a whole number or a string`, line);
}
