import { vitePreprocess } from '@sveltejs/vite-plugin-svelte';

export default {
  preprocess: vitePreprocess(),
  compilerOptions: {
    runes: true,
    discloseVersion: false,
    // The usual names are long and stand in every element of every template.
    cssHash: ({ hash, css }) => `s${hash(css).slice(0, 5)}`,
  },
};
