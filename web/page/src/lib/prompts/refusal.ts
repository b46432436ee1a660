// Why a file of prompts is refused. A file with one bad line is refused as a whole.

export class Refusal extends Error {
  constructor(message: string, readonly line: number | null = null) {
    super(line === null ? message : `line ${line}: ${message}`);
  }
}

/** A value from a file, quoted and shortened for an error. */
export function shown(value: string): string {
  const characters = [...value];
  const text = JSON.stringify(characters.slice(0, 60).join(''));
  return characters.length > 60 ? `${text}…` : text;
}

/** Whether nothing of a text can be seen. */
export function isBlank(text: string): boolean {
  return /^[\p{White_Space}\p{Default_Ignorable_Code_Point}\u2800]*$/u.test(text);
}
