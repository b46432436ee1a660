// Whether a line of text is a table's header. In doubt it is a prompt.
import { isField, isPromptColumn, likeField, plainName, SETTING_KEYS, twice } from './names';
import { isBlank } from './refusal';

export const SEPARATORS = [',', '\t', ';', '|'] as const;
const ROWS = 20;
const USUAL = new Set('author categories category challenge class date description file filename group id idx img index key label labels lang language link name no note notes nr number path rating score sku source split subject tag tags title topic type uid url value'.split(' '));

/** The separator of a header's cells; `null` if the line is no header. `rest` is what follows. */
export function headerOf(line: string, rest: string): string | null {
  if (isPromptColumn(line)) return isLone(line, rest) ? ',' : null;
  for (const separator of SEPARATORS) {
    const cells = namesIn(line, separator);
    if (!cells) continue;
    const tight = isTight(line, separator);
    // `image, text` may be a prompt; nobody writes `prompt, category` as one.
    const plain = tight || cells.some((cell) => isPromptColumn(cell) && !isText(cell));
    if ((plain && cells.every(isUsual)) || hasRows(rest, separator, cells.length, tight)) return separator;
  }
  return null;
}

/** Whether a later line may be a header, as when a table was appended. */
export function mayBeAmong(line: string): boolean {
  return !line.includes(', ') && SEPARATORS.some((separator) => isTight(line, separator) && namesIn(line, separator) !== null);
}

/** Whether a text goes on like a Markdown table after its header. */
export function isMarkdownRule(behind: string): boolean {
  const line = (behind.split('\n', 1)[0] ?? '').trim();
  return line.includes('|') && line.includes('--') && /^[|\-: \t]*$/.test(line);
}

function isLone(line: string, rest: string): boolean {
  if (!isText(line)) return true;
  const rows = rest.split('\n', 200).filter((row) => !isBlank(row)).slice(0, ROWS);
  return 2 * rows.filter((row) => words(row) > 1).length > rows.length;
}

function namesIn(line: string, separator: string): string[] | null {
  const cells = line.split(separator).map((cell) => cell.trim());
  const prose = !isTight(line, separator) && cells.some((cell) => words(cell) > 1);
  const names = cells.length > 1 && !prose && cells.some(isPromptColumn) &&
    cells.every((cell) => words(cell) <= 3 && [...cell].length <= 64) &&
    twice(cells.filter((cell) => cell !== '')) === null;
  return names ? cells : null;
}

function words(text: string): number {
  return text.split(/\s+/).filter((word) => word !== '').length;
}

function isTight(line: string, separator: string): boolean {
  return !line.includes(`${separator} `);
}

function isText(cell: string): boolean {
  return cell.trim().toLowerCase() === 'text';
}

function isUsual(cell: string): boolean {
  const name = plainName(cell);
  const setting = /^settings\.(size|width|height|output|[^.]+\.(.+))$/.exec(name);
  const isSetting = setting !== null && (setting[2] === undefined || (SETTING_KEYS as readonly string[]).includes(setting[2]));
  return isPromptColumn(name) || isField(name) || likeField(name) !== null || isSetting || name === '' ||
    USUAL.has(name) || (name.includes('_') && !/\s/.test(name));
}

function hasRows(rest: string, separator: string, width: number, tight: boolean): boolean {
  const rows = firstRows(rest, separator);
  const fitting = rows.filter((row) => row.cells === width || (tight && row.tight === width)).length;
  const wanted = Math.ceil(tight ? rows.length / 2 : (3 * rows.length) / 4);
  return rows.length > 0 && fitting >= wanted;
}

/** The first rows, as a reader of tables counts their cells. */
function firstRows(text: string, separator: string): { cells: number; tight: number }[] {
  const rows: { cells: number; tight: number }[] = [];
  let at = 0;
  while (rows.length < ROWS && at < text.length) {
    const row = { cells: 1, tight: 1 };
    let [blank, start, quoted] = [true, true, false];
    for (; at < text.length; at++) {
      const character = text[at];
      if (character === '\n' && !quoted) {
        at += 1;
        break;
      }
      if (character === '"' && quoted && text[at + 1] === '"') at += 1;
      else if (character === '"' && (quoted || start)) quoted = !quoted;
      else if (!quoted && character === separator) {
        row.cells += 1;
        if (text[at + 1] !== ' ') row.tight += 1;
        start = true;
        continue;
      }
      blank &&= /\s/.test(character);
      start = false;
    }
    if (!blank || row.cells > 1) rows.push(row);
  }
  return rows;
}
