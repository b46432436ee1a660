// Leaves out what Svelte has for pages that a server has drawn before: the farm serves an empty page,
// so the page never hydrates. The build does not find that out by itself.

const RUNTIME = /\/svelte\/src\/internal\/client\/dom\/hydration\.js$/;

/** Replaces text that must be there: another Svelte may write it differently. */
function replace(code, from, to) {
  if (!code.includes(from)) throw new Error(`Svelte's hydration.js has no “${from}”; see scripts/no-hydration.js`);
  return code.replace(from, to);
}

/** @returns {import('vite').Plugin} */
export function noHydration() {
  return {
    name: 'no-hydration',
    apply: 'build',
    enforce: 'post',
    transform(code, id) {
      if (RUNTIME.test(id)) return { code: replace(replace(code, 'export let hydrating = false;', 'export const hydrating = false;'), 'hydrating = value;', ''), map: null };
      return null;
    },
  };
}
