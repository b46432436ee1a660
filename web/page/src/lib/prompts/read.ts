// Reads a file of prompts as `darkroom submit --batch` does. What the page does not support is
// refused by name, and never guessed.
import type { Prompt } from '../types';
import { checkPrompt } from './check';
import { decide, isComment, isPython, looksLikeJson } from './detect';
import { fromJson } from './fields';
import { headerOf, mayBeAmong } from './header';
import { JsonReader } from './json';
import { readCoco } from './coco';
import { likeField } from './names';
import type { FileFormat, Options } from './options';
import { isBlank, Refusal, shown } from './refusal';
import { otherToolsWords, Remarks, writing } from './remarks';
import { readTable } from './table';

export interface PromptFile {
  format: FileFormat;
  prompts: Prompt[];
  notes: string[];
}

/** Reads the text of a file. Throws a `Refusal` that names the line. */
export function readPrompts(name: string, content: string, options: Options): PromptFile {
  const text = content.replace(/^\uFEFF+/, '').replace(/\r\n?/g, '\n');
  const notes: string[] = [];
  const remarks = new Remarks();
  const format = decide(name, text, options, notes);
  const prompts: Prompt[] = [];
  const ids = new Map<string, number>();
  const accept = (prompt: Prompt): void => {
    checkPrompt(prompt);
    const line = prompt.line ?? 0;
    if (prompt.custom_id && !isBlank(prompt.custom_id)) {
      const first = ids.get(prompt.custom_id);
      if (first !== undefined) throw new Refusal(`custom_id is ${shown(prompt.custom_id)}, which line ${first} already has; accepted: different ids`, line);
      ids.set(prompt.custom_id, line);
    }
    const words = otherToolsWords(prompt.text);
    if (words !== null) remarks.add('tool', line, words);
    prompts.push(prompt);
  };
  switch (format) {
    case 'text':
      readText(text, options, remarks, accept);
      break;
    case 'jsonl':
      readJsonLines(text, options, accept);
      break;
    case 'json':
      readJson(text, options, notes, accept);
      break;
    default:
      readTable(text, format, options, notes, accept);
  }
  if (prompts.length === 0) throw new Refusal('it holds no prompts; accepted: at least one');
  if (options.labels === 'all' && (format === 'json' || format === 'jsonl')) {
    for (const label of Object.keys(prompts[0].labels ?? {})) {
      const field = likeField(label);
      if (field) notes.push(`line ${prompts[0].line}: ${shown(label)} is kept as a label; if it is meant for the prompt, call it \`${field}\``);
    }
  }
  return { format, prompts, notes: [...notes, ...remarks.all()] };
}

/** Calls back with each line that has content, its number, and where the next line begins. */
function lines(text: string, comments: boolean, each: (line: string, number: number, next: number) => void): void {
  let at = 0;
  for (let number = 1; at <= text.length; number++) {
    const found = text.indexOf('\n', at);
    const end = found < 0 ? text.length : found;
    const line = text.slice(at, end).replace(/^\uFEFF+/, '');
    at = end + 1;
    if (!isBlank(line) && !(comments && isComment(line))) each(line, number, at);
    if (found < 0) return;
  }
}

function readText(text: string, options: Options, remarks: Remarks, accept: (prompt: Prompt) => void): void {
  const forced = options.format !== null;
  let first = true;
  lines(text, options.comments, (line, number, next) => {
    if (!forced && isPython(line)) throw new Refusal(`the line is data as Python prints it, not JSON: ${shown(line.trim())}; json.dumps writes JSON lines`, number);
    if (!forced && looksLikeJson(line)) throw new Refusal(`the line is JSON: ${shown(line.trim())}; choose the format jsonl, or text to take such lines as prompts`, number);
    const bad = /[\u2028\u2029\uFEFF]/.exec(line);
    if (bad) {
      const code = bad[0].charCodeAt(0).toString(16).toUpperCase();
      throw new Refusal(`the line contains U+${code}, so nobody can tell whether it is one prompt or two; accepted: LF, CRLF or CR between prompts`, number);
    }
    if (!forced && !first && mayBeAmong(line) && headerOf(line, text.slice(next, next + 65_536)) !== null) {
      throw new Refusal(`the line is a table's header: ${shown(line.trim())}; choose the format csv or tsv, or text to take such lines as prompts`, number);
    }
    first = false;
    const how = writing(line);
    if (isComment(line)) remarks.add('hash', number, line);
    else if (how !== null) remarks.add(how, number, line);
    accept({ text: line, line: number });
  });
}

function readJsonLines(text: string, options: Options, accept: (prompt: Prompt) => void): void {
  lines(text, options.comments, (line, number) => {
    const reader = new JsonReader(line, number);
    const node = reader.value();
    if (reader.next !== '') throw reader.unexpected('nothing after the end of the JSON');
    accept(fromJson(node, number, options));
  });
}

function readJson(text: string, options: Options, notes: string[], accept: (prompt: Prompt) => void): void {
  const reader = new JsonReader(text);
  if (reader.next === '{') readCoco(reader, options, notes, accept);
  else reader.array('an array of strings and objects', (node, line) => accept(fromJson(node, line, options)));
  if (reader.next !== '') throw reader.unexpected('nothing after the end of the JSON');
}
