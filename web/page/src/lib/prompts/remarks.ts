// What the reader of a file should know although nothing is wrong. Lines with the same remark are counted in one.
import { shown } from './refusal';

type Remark = 'hash' | 'tool' | 'quoted' | 'listed';

const TEXTS: Record<Remark, [string, string, string]> = {
  hash: ['begins', 'begin', 'with # ({}); such lines are prompts unless comments are skipped'],
  tool: ['has', 'have', "another tool's options ({}); here they are part of the prompt"],
  quoted: ['is', 'are', 'in quotes ({}), which are part of the prompt here'],
  listed: ['begins', 'begin', 'with a list marker ({}), which is part of the prompt here'],
};

export class Remarks {
  #first = new Map<Remark, { line: number; example: string; count: number }>();

  add(remark: Remark, line: number, example: string): void {
    const known = this.#first.get(remark);
    if (known) known.count += 1;
    else this.#first.set(remark, { line, example: shown(example.trim()), count: 1 });
  }

  all(): string[] {
    return [...this.#first].map(([remark, { line, example, count }]) => {
      const [one, several, rest] = TEXTS[remark];
      const others = count - 1;
      const who = others === 0 ? `line ${line} ${one}` : `line ${line} and ${others} other${others === 1 ? '' : 's'} ${several}`;
      return `${who} ${rest.replace('{}', () => example)}`;
    });
  }
}

/** The part of a prompt that only means something to another tool. */
export function otherToolsWords(text: string): string | null {
  const option = text.split(/\s+/).find((word) => /^--[A-Za-z][\w-]*(=|$)/.test(word));
  if (option) return option;
  const lora = /<lora:[^>]*>?/.exec(text);
  if (lora) return lora[0];
  return ['Negative prompt:', 'Steps: '].find((word) => text.trimStart().startsWith(word)) ?? null;
}

/** How a line is formatted that comes from another program. */
export function writing(line: string): 'quoted' | 'listed' | null {
  const text = line.trim();
  if (/^(?:[-*\u2022]|\d{1,4}[.)])\s+\S/.test(text)) return 'listed';
  const bare = text.replace(/[,;]$/, '');
  const quotes = ['""', "''", '``', '\u201c\u201d', '\u00ab\u00bb'];
  const quoted = quotes.some(([open, close]) => {
    const inside = bare.slice(1, -1);
    return bare.length > 2 && bare.startsWith(open) && bare.endsWith(close) && !inside.includes(open) && !inside.includes(close);
  });
  return quoted ? 'quoted' : null;
}
