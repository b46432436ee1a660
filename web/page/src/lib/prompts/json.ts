// Reads JSON strictly, and keeps what `JSON.parse` loses: the digits of large numbers, keys that
// occur twice, and the line of each value.
import { Refusal, shown } from './refusal';

export type Node =
  | { kind: 'string'; value: string; raw: string }
  | { kind: 'number'; raw: string }
  | { kind: 'word'; raw: 'true' | 'false' | 'null' }
  | { kind: 'array'; items: Node[]; raw: string }
  | { kind: 'object'; members: [string, Node][]; raw: string };

const SPACE = /[ \t\n\r]*/y;
const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const WORD = /true|false|null/y;
// A string, with its escapes; control characters are not allowed inside.
// eslint-disable-next-line no-control-regex
const STRING = /"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"/y;
const DEEPEST = 64;

export class JsonReader {
  at = 0;
  #line = 1;
  #counted = 0;

  constructor(private readonly text: string, firstLine = 1) {
    this.#line = firstLine;
  }

  /** The line of the present position. */
  get line(): number {
    for (; this.#counted < this.at; this.#counted++) {
      if (this.text.charCodeAt(this.#counted) === 10) this.#line += 1;
    }
    return this.#line;
  }

  skipSpace(): void {
    SPACE.lastIndex = this.at;
    SPACE.test(this.text);
    this.at = SPACE.lastIndex;
  }

  get next(): string {
    this.skipSpace();
    return this.text.charAt(this.at);
  }

  /** Takes this character, if it is the next one. */
  take(character: string): boolean {
    if (this.next !== character) return false;
    this.at += 1;
    return true;
  }

  expect(character: string, accepted: string): void {
    if (!this.take(character)) throw this.unexpected(accepted);
  }

  unexpected(accepted: string): Refusal {
    const found = this.next === '' ? 'the end of the file' : shown(String.fromCodePoint(this.text.codePointAt(this.at)!));
    return new Refusal(`${found} is not expected here; accepted: ${accepted}`, this.line);
  }

  value(depth = 0): Node {
    const first = this.next;
    const start = this.at;
    if (depth > DEEPEST) throw new Refusal('the JSON is nested too deeply', this.line);
    if (first === '"') return { kind: 'string', value: this.#string(), raw: this.text.slice(start, this.at) };
    if (first === '{') return this.#object(depth, start);
    if (first === '[') return this.#array(depth, start);
    const word = this.#match(WORD);
    if (word !== null) return { kind: 'word', raw: word as 'true' };
    const number = this.#match(NUMBER);
    if (number !== null) return { kind: 'number', raw: number };
    throw this.unexpected('a JSON value');
  }

  /** Calls back with each element of an array, and its line. */
  array(accepted: string, each: (node: Node, line: number) => void): void {
    this.expect('[', accepted);
    if (this.take(']')) return;
    do {
      this.skipSpace();
      const line = this.line;
      each(this.value(), line);
    } while (this.take(','));
    this.expect(']', 'a comma or a bracket `]` after an element');
  }

  /** The key of an object's next member; `null` at the object's end, which is taken. */
  key(isFirst: boolean): string | null {
    if (this.take('}')) return null;
    if (!isFirst) this.expect(',', 'a comma or a bracket `}`');
    if (this.next !== '"') throw this.unexpected('a key in quotes');
    const key = this.#string();
    this.expect(':', 'a colon after a key');
    return key;
  }

  #match(pattern: RegExp): string | null {
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.text)?.[0] ?? null;
    if (found !== null) this.at += found.length;
    return found;
  }

  #string(): string {
    const line = this.line;
    const text = this.#match(STRING);
    if (text === null) throw new Refusal('a string begins here that is not valid or never ends; accepted: JSON', line);
    return JSON.parse(text) as string;
  }

  #array(depth: number, start: number): Node {
    const items: Node[] = [];
    this.at += 1;
    if (!this.take(']')) {
      do items.push(this.value(depth + 1));
      while (this.take(','));
      this.expect(']', 'a comma or a bracket `]` after an element');
    }
    return { kind: 'array', items, raw: this.text.slice(start, this.at) };
  }

  #object(depth: number, start: number): Node {
    const members: [string, Node][] = [];
    this.at += 1;
    for (let key = this.key(true); key !== null; key = this.key(false)) members.push([key, this.value(depth + 1)]);
    return { kind: 'object', members, raw: this.text.slice(start, this.at) };
  }
}

/** The value of a whole text; `null` if the text is not one JSON value. */
export function parseWhole(text: string): Node | null {
  try {
    const reader = new JsonReader(text);
    const node = reader.value();
    return reader.next === '' ? node : null;
  } catch {
    return null;
  }
}

/** A value as text, without the blanks between its parts. */
export function compact(node: Node): string {
  switch (node.kind) {
    case 'array':
      return `[${node.items.map(compact).join(',')}]`;
    case 'object':
      return `{${node.members.map(([key, value]) => `${JSON.stringify(key)}:${compact(value)}`).join(',')}}`;
    default:
      return node.raw;
  }
}

/** A value, shortened for an error. */
export function cut(node: Node): string {
  const text = [...compact(node)];
  return text.length > 60 ? `${text.slice(0, 60).join('')}…` : text.join('');
}
