import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vitest/config';
import { noHydration } from './scripts/no-hydration.js';

/** Where `npm run dev` finds the farm. */
const farm = process.env.DARKROOM_PAGE_FARM ?? 'http://127.0.0.1:7878';

export default defineConfig({
  plugins: [svelte(), noHydration()],
  build: {
    target: ['chrome123', 'firefox121', 'safari17.5'],
    // One script and one style sheet: a page that was open during an upgrade never asks for a part
    // that is no longer there.
    rolldownOptions: { output: { codeSplitting: false }, optimization: { inlineConst: true } },
    modulePreload: false,
    assetsInlineLimit: 0,
  },
  server: { proxy: { '/api': { target: farm, headers: { origin: farm } } } },
  test: { include: ['tests/**/*.test.ts'], environment: 'node' },
});
