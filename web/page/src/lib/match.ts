// Patterns of paths.

/** The parts of a path that fit `/jobs/:id`; `null` if it is another path. */
export function match(pattern: string, path: string): Record<string, string> | null {
  const wanted = pattern.split('/');
  const parts = path.replace(/\/+$/, '').split('/');
  if (wanted.length !== parts.length) return null;
  const found: Record<string, string> = {};
  for (const [at, part] of wanted.entries()) {
    if (part.startsWith(':')) {
      try {
        found[part.slice(1)] = decodeURIComponent(parts[at]);
      } catch {
        return null;
      }
    } else if (part !== parts[at]) return null;
  }
  return found;
}
