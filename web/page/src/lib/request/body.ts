// A request as the API takes it.
import type { JobSpec, Prompt } from '../types';

export interface Request {
  spec: JobSpec;
  prompts: Prompt[];
}

/** More prompts than this are sent as lines, of which there may be any number. */
const MOST_IN_ONE = 1000;
const LINES_PER_PART = 5000;

export function bodyOf({ spec, prompts }: Request): { body: BodyInit; type: string } {
  if (prompts.length <= MOST_IN_ONE) {
    return { body: JSON.stringify({ spec, prompts }), type: 'application/json' };
  }
  const parts = [`${JSON.stringify(spec)}\n`];
  for (let at = 0; at < prompts.length; at += LINES_PER_PART) {
    parts.push(`${prompts.slice(at, at + LINES_PER_PART).map((prompt) => JSON.stringify(prompt)).join('\n')}\n`);
  }
  return { body: new Blob(parts), type: 'application/jsonl' };
}
