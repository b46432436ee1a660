// Checks that a prompt is one that the farm takes, in the words of the command line.
import type { Prompt } from '../types';
import { isBlank, Refusal, shown } from './refusal';

const MOST_CHARACTERS = 4096;
const MOST_IMAGES = 10_000;

/** Length in characters, as people count them, and not in halves of characters. */
function length(text: string): number {
  let characters = 0;
  for (const character of text) characters += character.length > 0 ? 1 : 0;
  return characters;
}

function checkText(field: string, text: string, line: number): void {
  const characters = text.length > MOST_CHARACTERS ? length(text) : text.length;
  if (characters > MOST_CHARACTERS) {
    throw new Refusal(`${field} has ${characters} characters; accepted: 1 to ${MOST_CHARACTERS}`, line);
  }
  const bad = /[^\P{Cc}\t\n\r]/u.exec(text);
  if (bad) {
    const code = bad[0].codePointAt(0)!.toString(16).toUpperCase().padStart(4, '0');
    throw new Refusal(`${field} contains the control character U+${code}; accepted: printable text`, line);
  }
}

/** Checks every field of a prompt. */
export function checkPrompt(prompt: Prompt): void {
  const line = prompt.line ?? 0;
  if (isBlank(prompt.text)) {
    const is = prompt.text === '' ? 'empty' : 'empty (nothing in it can be seen)';
    throw new Refusal(`prompt is ${is}; accepted: 1 to ${MOST_CHARACTERS} characters that are not all blank`, line);
  }
  checkText('prompt', prompt.text, line);
  checkText('negative', prompt.negative ?? '', line);
  checkText('style', prompt.style ?? '', line);
  if ((prompt.images ?? 0) > MOST_IMAGES) {
    throw new Refusal(`images is ${prompt.images}; accepted: 1 to ${MOST_IMAGES}, or 0 for the job's number`, line);
  }
  if (prompt.custom_id) {
    if (length(prompt.custom_id) > 128) {
      throw new Refusal(`custom_id has ${length(prompt.custom_id)} characters; accepted: 1 to 128, or none`, line);
    }
    if (/\p{Cc}/u.test(prompt.custom_id)) throw new Refusal('custom_id has a character that cannot be printed', line);
  }
  checkLabels(prompt.labels ?? {}, line);
}

function checkLabels(labels: Record<string, string>, line: number): void {
  const entries = Object.entries(labels);
  if (entries.length > 16) {
    throw new Refusal(`labels has ${entries.length} labels; accepted: at most 16. Other columns are kept as labels unless the file is read without labels`, line);
  }
  for (const [key, value] of entries) {
    if (isBlank(key) || length(key) > 64) throw new Refusal(`a key of labels is ${shown(key)}; accepted: 1 to 64 characters`, line);
    if (length(value) > 1024) throw new Refusal(`labels[${shown(key)}] has ${length(value)} characters; accepted: at most 1024`, line);
  }
}
