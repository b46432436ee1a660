// Takes a dropped file: a picture becomes the start, anything else a list of prompts.
import { inputs } from '../api';
import { notices } from '../notices.svelte';
import { sentence } from '../problem';
import { textOf } from '../prompts/open';
import { draft } from './draft.svelte';

const PICTURES = ['image/png', 'image/jpeg', 'image/webp'];

export async function receive(file: File): Promise<void> {
  if (file.type.startsWith('image/')) await receivePicture(file);
  else await receivePrompts(file);
}

export async function receivePrompts(file: File): Promise<void> {
  try {
    draft.setFile(file.name, await textOf(file));
  } catch (error) {
    draft.dropFile();
    draft.fileName = file.name;
    draft.fileError = sentence(error);
  }
}

export async function receivePicture(file: File): Promise<void> {
  if (!PICTURES.includes(file.type)) {
    notices.show(`${file.name} is ${file.type}; accepted: PNG, JPEG and WebP.`, 'bad');
    return;
  }
  try {
    const upload = await inputs.upload(file);
    dropPicture();
    draft.picture = { upload, name: file.name, url: URL.createObjectURL(file) };
    for (const note of upload.notes) notices.show(`${file.name} ${note}.`);
  } catch (error) {
    notices.show(`${file.name} was not taken: ${sentence(error)}`, 'bad');
  }
}

export function dropPicture(): void {
  dropMask();
  if (draft.picture) URL.revokeObjectURL(draft.picture.url);
  draft.picture = null;
  draft.strength = '';
  draft.startStage = '';
}

export function dropMask(): void {
  if (draft.mask) URL.revokeObjectURL(draft.mask.url);
  draft.mask = null;
}

/** Sends a painted mask. */
export async function receiveMask(mask: Blob): Promise<void> {
  const upload = await inputs.upload(mask);
  dropMask();
  draft.mask = { upload, name: 'mask.png', url: URL.createObjectURL(mask) };
}
