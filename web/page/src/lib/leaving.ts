// The end of a view: what it has begun must not act on the page that follows.
import { onDestroy } from 'svelte';

/** A signal that is aborted when the component that asks for it goes. */
export function leaving(): AbortSignal {
  const abort = new AbortController();
  onDestroy(() => abort.abort());
  return abort.signal;
}
