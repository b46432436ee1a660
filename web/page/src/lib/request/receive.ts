// Takes a dropped file: a picture becomes the start, anything else a list of prompts.
import { inputs } from '../api';
import { notices } from '../notices.svelte';
import { isAborted, sentence } from '../problem';
import { textOf } from '../prompts/open';
import { draft, type Picture } from './draft.svelte';

const PICTURES = ['image/png', 'image/jpeg', 'image/webp'];

/** Of files that come one after another the last one counts, also if an earlier one is ready later. */
let prompts = 0;
let pictures = new AbortController();

export async function receive(file: File): Promise<void> {
  if (file.type.startsWith('image/')) await receivePicture(file);
  else await receivePrompts(file);
}

async function receivePrompts(file: File): Promise<void> {
  const mine = ++prompts;
  const its = draft;
  try {
    const text = await textOf(file);
    if (mine === prompts) its.setFile(file.name, text);
  } catch (error) {
    if (mine !== prompts) return;
    its.dropFile();
    its.fileName = file.name;
    its.fileError = sentence(error);
  }
}

async function receivePicture(file: File): Promise<void> {
  const its = draft;
  if (!PICTURES.includes(file.type)) {
    its.pictureError = `${file.name} is ${file.type}; accepted: PNG, JPEG and WebP.`;
    return;
  }
  const picture = await send(file, file.name);
  if (picture === null) return;
  its.dropPicture();
  its.picture = picture;
  for (const note of picture.upload.notes) notices.show(`${file.name} ${note}.`);
}

/** Sends a painted mask. */
export async function receiveMask(mask: Blob): Promise<void> {
  const its = draft;
  const sent = await send(mask, 'mask.png');
  if (sent === null) return;
  its.dropMask();
  its.mask = sent;
}

/** Takes a picture away, also one that is on its way. */
export function dropPicture(): void {
  pictures.abort();
  draft.sending = '';
  draft.dropPicture();
}

/** Sends a picture to the farm. A newer one, or another caller, ends the call: then there is none. */
async function send(file: Blob, name: string): Promise<Picture | null> {
  const its = draft;
  pictures.abort();
  pictures = new AbortController();
  const { signal } = pictures;
  its.sending = name;
  its.pictureError = '';
  try {
    const upload = await inputs.upload(file, signal);
    return signal.aborted ? null : { upload, name, url: URL.createObjectURL(file) };
  } catch (error) {
    if (!isAborted(error) && !signal.aborted) its.pictureError = `${name} was not taken. ${sentence(error)}`;
    return null;
  } finally {
    if (!signal.aborted) its.sending = '';
  }
}

/** Ends what is on its way, as when the caller goes. */
export function endReceiving(): void {
  prompts += 1;
  pictures.abort();
}
