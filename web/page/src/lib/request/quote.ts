// Texts as shells and Python read them, whatever is in them.

/** One word of a POSIX shell. zsh looks a word up that begins with `=`. */
export function shell(text: string): string {
  if (/^[\w@%+:,./-][\w@%+=:,./-]*$/.test(text)) return text;
  // Inside single quotes nothing is special but the quote itself.
  return `'${text.replaceAll("'", "'\\''")}'`;
}

type Json = null | boolean | number | string | Json[] | { [key: string]: Json | undefined };

/** A JSON value as a Python literal, indented. */
export function python(value: Json, indent = ''): string {
  if (value === null) return 'None';
  if (typeof value === 'boolean') return value ? 'True' : 'False';
  // JSON's escapes are Python's too, and everything else may stand in a Python string as it is.
  if (typeof value === 'string') return JSON.stringify(value);
  if (typeof value === 'number') return String(value);
  const inner = `${indent}    `;
  if (Array.isArray(value)) {
    if (value.length === 0) return '[]';
    return `[\n${value.map((one) => `${inner}${python(one, inner)},\n`).join('')}${indent}]`;
  }
  const entries = Object.entries(value).filter(([, one]) => one !== undefined);
  if (entries.length === 0) return '{}';
  return `{\n${entries.map(([key, one]) => `${inner}${JSON.stringify(key)}: ${python(one as Json, inner)},\n`).join('')}${indent}}`;
}
