// What the page knows of a caller is gone when somebody else uses it.
import { endCalls } from './api';
import { catalog } from './catalog.svelte';
import { notices } from './notices.svelte';
import { newDraft } from './request/draft.svelte';
import { endReceiving } from './request/receive';
import { farm } from './stream/farm.svelte';
import { loader } from './strips';

/** Forgets everything that the last caller saw or wrote. */
export function forgetCaller(): void {
  endCalls();
  endReceiving();
  farm.stop();
  catalog.forget();
  loader.forget();
  notices.clear();
  newDraft();
}
