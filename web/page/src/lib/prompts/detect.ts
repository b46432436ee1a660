// The format of a file, from its name and the beginning of its content.
import { headerOf, isMarkdownRule } from './header';
import { parseWhole } from './json';
import type { FileFormat, Options } from './options';
import { isBlank, Refusal, shown } from './refusal';

const EXTENSIONS: Record<string, FileFormat> = { txt: 'text', text: 'text', jsonl: 'jsonl', ndjson: 'jsonl', jsonlines: 'jsonl', csv: 'csv', tsv: 'tsv', tab: 'tsv', json: 'json' };
const OTHERS = new Set(['yaml', 'yml', 'toml', 'xml', 'html', 'htm', 'ini', 'ipynb', 'py', 'sql']);
/** How much of the file the decision looks at. */
const PEEK = 65_536;

/** The extension of a file, without one for compression. */
function extensionOf(name: string): string {
  const bare = name.replace(/\.(gz|gzip|zst|zstd)$/i, '');
  return /\.([^./\\]+)$/.exec(bare)?.[1].toLowerCase() ?? '';
}

export function decide(name: string, text: string, options: Options, notes: string[]): FileFormat {
  const first = firstLine(text, options.comments);
  const line = first.text.trim();
  if (options.format !== null) return options.format;
  const what = document(line, first.behind);
  if (what !== null) throw new Refusal(`the file is ${what}, not a list of prompts; choose the format text to take its lines as prompts`, first.line);
  const extension = extensionOf(name);
  const named = Object.hasOwn(EXTENSIONS, extension) ? EXTENSIONS[extension] : null;
  if (line === '') return named ?? 'text';
  const refuse = (is: string, format: string): never => {
    const but = named === null ? '' : `the file is named .${extension}, but `;
    throw new Refusal(`${but}this line is ${is}: ${shown(line)}; choose the format ${format}${format === 'text' ? '' : ', or text to take its lines as prompts'}`, first.line);
  };
  const json = jsonIn(line, first.text + first.behind);
  if (named === null && json === 'line') return 'jsonl';
  if (named === null && json !== null) return 'json';
  if (named === 'text' || named === 'csv' || named === 'tsv') {
    if (json === 'line') refuse('a JSON object', 'jsonl');
    if (json === 'coco') refuse('the beginning of COCO captions', 'json');
    if (json !== null) refuse('the beginning of JSON', 'json');
  }
  if (named === 'csv' || named === 'tsv') return named;
  if (named === 'json') {
    if (json === 'line') return instead(notes, extension, 'JSON lines', 'jsonl');
    if (json !== null) return 'json';
  }
  if (named === 'jsonl' && json === 'coco') return instead(notes, extension, 'COCO captions', 'json');
  if (named === 'jsonl' && json === 'array') return instead(notes, extension, 'a JSON array', 'json');
  const separator = json === null ? headerOf(line, first.behind) : null;
  if (separator !== null) refuse("a table's header", separator === '\t' ? 'tsv' : 'csv');
  if (named === 'jsonl') return 'jsonl';
  if (named === 'json') refuse('not JSON', 'text');
  if (named === null && OTHERS.has(extension)) {
    throw new Refusal(`it is named .${extension}, which is not a list of prompts; choose the format text to take its lines as prompts`);
  }
  return 'text';
}

function instead(notes: string[], extension: string, what: string, format: FileFormat): FileFormat {
  notes.push(`the file is named .${extension}, but contains ${what} and is read as such`);
  return format;
}

function firstLine(text: string, comments: boolean): { line: number; text: string; behind: string } {
  const peek = text.slice(0, PEEK);
  let at = 0;
  for (let line = 1; at < peek.length; line++) {
    const end = peek.indexOf('\n', at);
    const one = peek.slice(at, end < 0 ? undefined : end).replace(/^\uFEFF+/, '');
    const behind = end < 0 ? '' : peek.slice(end + 1);
    if (!isBlank(one) && !(comments && isComment(one))) return { line, text: one, behind };
    if (end < 0) break;
    at = end + 1;
  }
  return { line: 1, text: '', behind: '' };
}

export function isComment(line: string): boolean {
  return line.trimStart().startsWith('#');
}

function jsonIn(line: string, rest: string): 'line' | 'object' | 'array' | 'coco' | null {
  if (line.startsWith('{')) {
    const whole = line.endsWith('}') ? parseWhole(line) : null;
    if (whole?.kind === 'object') {
      return whole.members.some(([key, value]) => key === 'annotations' && value.kind === 'array') ? 'coco' : 'line';
    }
    if (/^\{\s*"(?:type"\s*:|(?:info|images|annotations|licenses|categories)"\s*:\s*[[{])/.test(rest.trimStart())) return 'coco';
    return /^\{\s*["}]/.test(rest.trimStart()) ? 'object' : null;
  }
  return /^\[\s*(?:["\]]|\{\s*["}])/.test(rest.trimStart()) ? 'array' : null;
}

/** Whether a line is JSON and so no prompt. */
export function looksLikeJson(line: string): boolean {
  const text = line.trim();
  if (/^\{\s*"/.test(text)) return true;
  if (text.startsWith('{') && text.endsWith('}')) return parseWhole(text) !== null;
  return /^\[\s*["{[]/.test(text) && text.endsWith(']') && parseWhole(text) !== null;
}

/** Whether a line is data as Python prints it. */
export function isPython(line: string): boolean {
  const text = line.trim().replace(/^\[(.*)\]$/s, '$1').trim();
  return /^\{\s*'/.test(text) && text.endsWith('}') && text.includes("':");
}

function document(line: string, behind: string): string | null {
  if (/^<(!doctype html|html)/i.test(line)) return 'a web page';
  if (/^<\?xml/i.test(line)) return 'XML';
  if (line.startsWith('version https://git-lfs.github.com/spec/')) return 'a Git LFS pointer (run `git lfs pull` to fetch the real file)';
  const closes = behind.split('\n', 20).some((one) => one.trimStart().startsWith('</'));
  if (line.startsWith('<') && line.endsWith('>') && (line.includes('</') || closes)) return 'XML, or a part of a web page';
  if (isMarkdownRule(behind) && line.includes('|')) return 'a Markdown table (CSV and TSV are read)';
  return null;
}
