// Tables with a header, in the form of RFC 4180. Broken input is refused with its line.
import type { Prompt } from '../types';
import { parseU64 } from '../u64';
import { isComment } from './detect';
import { pictured } from './fields';
import { isMarkdownRule, SEPARATORS } from './header';
import { isField, isPromptColumn, likeField, plainName, twice, type Field } from './names';
import type { Options } from './options';
import { isBlank, Refusal, shown } from './refusal';
import { ofColumn, type Setter } from './settings';

type Column =
  | { kind: 'prompt' }
  | { kind: 'field'; field: Field }
  | { kind: 'setting'; set: Setter }
  | { kind: 'label'; name: string }
  | { kind: 'none' };

/** Cells of a record and its first line. */
interface Record {
  line: number;
  cells: string[];
}

class Records {
  at = 0;
  line = 1;

  constructor(readonly text: string) {}

  /** The rest of the present line, which stays. */
  peekLine(): string {
    const end = this.text.indexOf('\n', this.at);
    return this.text.slice(this.at, end < 0 ? undefined : end).replace(/^\uFEFF+/, '');
  }

  skipLine(): boolean {
    const end = this.text.indexOf('\n', this.at);
    this.at = end < 0 ? this.text.length : end + 1;
    this.line += 1;
    return this.at < this.text.length;
  }

  next(separator: string): Record | null {
    while (this.text[this.at] === '\uFEFF') this.at += 1;
    if (this.at >= this.text.length) return null;
    const record: Record = { line: this.line, cells: [] };
    for (;;) {
      record.cells.push(this.text[this.at] === '"' ? this.#quoted(separator) : this.#plain(separator));
      const end = this.text[this.at];
      this.at += 1;
      if (end === separator) continue;
      this.line += 1;
      return record;
    }
  }

  #plain(separator: string): string {
    const start = this.at;
    while (this.at < this.text.length && this.text[this.at] !== separator && this.text[this.at] !== '\n') {
      if (this.text[this.at] === '"' && this.at > start && /^ *$/.test(this.text.slice(start, this.at))) {
        throw new Refusal("a blank stands before a cell's opening quote; accepted: the quote directly after the separator", this.line);
      }
      this.at += 1;
    }
    return this.text.slice(start, this.at);
  }

  #quoted(separator: string): string {
    const opened = this.line;
    let cell = '';
    for (let from = this.at + 1; ;) {
      const quote = this.text.indexOf('"', from);
      if (quote < 0) throw new Refusal('a cell\'s quote opens here and never closes; accepted: a closing quote, and "" for a quote inside', opened);
      cell += this.text.slice(from, quote);
      if (this.text[quote + 1] === '"') {
        cell += '"';
        from = quote + 2;
        continue;
      }
      this.at = quote + 1;
      this.line = opened + (cell.match(/\n/g)?.length ?? 0);
      const after = this.text[this.at];
      if (after !== undefined && after !== separator && after !== '\n') {
        throw new Refusal("text follows a cell's closing quote; accepted: the separator or the line's end, and \"\" for a quote inside", this.line);
      }
      return cell;
    }
  }
}

export function readTable(text: string, format: 'csv' | 'tsv', options: Options, notes: string[], accept: (prompt: Prompt) => void): void {
  const records = new Records(text);
  let said: string | null = null;
  for (;;) {
    const line = records.peekLine();
    // The line that Excel writes and reads.
    const separator = /^sep=(.)$/i.exec(line)?.[1] ?? null;
    said = separator ?? said;
    if (separator === null && !isBlank(line) && !(options.comments && isComment(line))) break;
    if (!records.skipLine()) return;
  }
  const separator = said ?? separatorOf(records.peekLine(), format, options);
  const header = records.next(separator);
  if (!header) return;
  if (isMarkdownRule(records.text.slice(records.at, records.at + 1000))) {
    throw new Refusal('the line is a separator line, as in Markdown tables; accepted: CSV or TSV without such lines', records.line);
  }
  const columns = columnsOf(header, options, notes);
  for (;;) {
    if (options.comments && records.peekLine().startsWith('#')) {
      if (!records.skipLine()) return;
      continue;
    }
    const record = records.next(separator);
    if (!record) return;
    if (!record.cells.every(isBlank)) accept(promptOf(record, header.cells, columns, separator));
  }
}

function separatorOf(header: string, format: 'csv' | 'tsv', options: Options): string {
  if (format === 'tsv' && options.format === 'tsv') return '\t';
  const order = format === 'tsv' ? ['\t', ',', ';', '|'] : [...SEPARATORS];
  const wanted = (name: string): boolean => options.column ? plainName(name) === options.column.trim().toLowerCase() : isPromptColumn(name);
  const present = order.filter((separator) => header.includes(separator));
  return present.find((separator) => header.split(separator).some(wanted)) ?? present[0] ?? order[0];
}

function columnsOf(header: Record, options: Options, notes: string[]): Column[] {
  const names = header.cells.map((name) => name.trim());
  const prompt = promptColumn(names, header.line, options);
  const columns = names.map((name, at): Column => {
    const lower = name.toLowerCase();
    if (at === prompt) return { kind: 'prompt' };
    if (isBlank(name)) {
      notes.push(`line ${header.line}: column ${at + 1} has no name and is left out`);
      return { kind: 'none' };
    }
    if (isField(lower)) return { kind: 'field', field: lower };
    const set = ofColumn(lower, header.line);
    if (set) return { kind: 'setting', set };
    if (options.labels === 'none') return { kind: 'none' };
    const field = likeField(name);
    if (field) notes.push(`line ${header.line}: ${shown(name)} is kept as a label; if it is meant for the prompt, call it \`${field}\``);
    return { kind: 'label', name };
  });
  const used = names.filter((_, at) => columns[at].kind !== 'none').map((name) => name.toLowerCase());
  const name = twice(used);
  if (name !== null) throw new Refusal(`the column ${shown(name)} occurs twice; accepted: each name once`, header.line);
  return columns;
}

function promptColumn(names: string[], line: number, options: Options): number {
  const list = names.slice(0, 20).map(shown).join(', ');
  if (options.column) {
    const exact = names.indexOf(options.column);
    const at = exact >= 0 ? exact : names.findIndex((name) => name.toLowerCase() === options.column.trim().toLowerCase());
    if (at < 0) throw new Refusal(`column is ${shown(options.column)}; accepted: one of the table's: ${list}`);
    return at;
  }
  const plain = names.flatMap((name, at) => (isPromptColumn(name) ? [at] : []));
  if (plain.length === 1) return plain[0];
  if (plain.length === 0) {
    throw new Refusal(`no column is plainly the prompt; accepted: a header with prompt, caption or text, or one of ${list} as the column. A table without a header needs one as its first line`, line);
  }
  throw new Refusal(`${plain.map((at) => shown(names[at])).join(' and ')} may each be the prompt; say which column it is; the columns are ${list}`, line);
}

function promptOf(record: Record, header: string[], columns: Column[], separator: string): Prompt {
  const { line, cells } = record;
  if (cells.length !== columns.length) {
    throw new Refusal(`the row has ${cells.length} cells; accepted: ${columns.length}, as in the header. Put a cell that contains the separator ${shown(separator)} in quotes`, line);
  }
  if (cells.every((cell, at) => cell === header[at])) {
    throw new Refusal('the row repeats the header, perhaps because tables were joined; remove the line', line);
  }
  const prompt: Prompt = { text: '', line };
  for (const [at, cell] of cells.entries()) {
    const column = columns[at];
    if (isBlank(cell) || column.kind === 'none') continue;
    if (column.kind === 'prompt') prompt.text = cell;
    else if (column.kind === 'label') (prompt.labels ??= Object.create(null) as Prompt['labels'] & object)[column.name] = cell;
    else if (column.kind === 'setting') column.set((prompt.settings ??= {}), cell, line);
    else takeField(prompt, column.field, cell, line);
  }
  return prompt;
}

function takeField(prompt: Prompt, field: Field, cell: string, line: number): void {
  switch (field) {
    case 'image':
    case 'mask':
      throw pictured(field, cell, line);
    case 'images':
      prompt.images = Number(wholeCell('images', cell, "1 to 10000, or 0 or an empty cell for the job's number", line));
      return;
    case 'seed':
      prompt.seed = wholeCell('seed', cell, '0 to 18446744073709551615, or an empty cell', line);
      return;
    default:
      prompt[field] = cell;
  }
}

function wholeCell(field: string, cell: string, accepted: string, line: number): number | string {
  const value = parseU64(cell);
  if (value === null) throw new Refusal(`${field} is ${shown(cell)}; accepted: a whole number, ${accepted}`, line);
  return value;
}
