// Turns a dropped file into text: compressed files, other encodings, and files that are no text.
import { Refusal } from './refusal';

/** Larger files go through the command line, which streams them. */
const LARGEST = 64 * 1024 * 1024;

const KINDS: [number[], string][] = [
  [[0x25, 0x50, 0x44, 0x46], 'a PDF document; copy its text into a text file'],
  [[0x50, 0x4b, 0x03, 0x04], 'a ZIP archive or an Office document; export the table as CSV'],
  [[0x50, 0x41, 0x52, 0x31], 'a Parquet file; export its texts as CSV or JSON lines'],
  [[0x42, 0x5a, 0x68], 'compressed with bzip2; unpack it first, or use gzip'],
  [[0xfd, 0x37, 0x7a, 0x58, 0x5a], 'compressed with xz; unpack it first, or use gzip'],
  [[0x28, 0xb5, 0x2f, 0xfd], 'compressed with Zstandard, which this page does not unpack; `darkroom submit --batch FILE` does, and gzip works here'],
];

export async function textOf(file: Blob): Promise<string> {
  let bytes = await read(file);
  if (bytes[0] === 0x1f && bytes[1] === 0x8b) {
    const unpacked = file.stream().pipeThrough(new DecompressionStream('gzip'));
    bytes = await readStream(unpacked);
  }
  for (const [magic, what] of KINDS) {
    if (magic.every((byte, at) => bytes[at] === byte)) throw new Refusal(`it is ${what}`);
  }
  const utf16 = bytes[0] === 0xff && bytes[1] === 0xfe ? 'utf-16le' : bytes[0] === 0xfe && bytes[1] === 0xff ? 'utf-16be' : null;
  try {
    return new TextDecoder(utf16 ?? 'utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw new Refusal('it is not UTF-8, or UTF-16 with a byte order mark; save it as UTF-8');
  }
}

async function read(file: Blob): Promise<Uint8Array> {
  if (file.size > LARGEST) throw tooLarge();
  return new Uint8Array(await file.arrayBuffer());
}

async function readStream(stream: ReadableStream<Uint8Array>): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let size = 0;
  const reader = stream.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      size += value.length;
      if (size > LARGEST) throw tooLarge();
      parts.push(value);
    }
  } catch (error) {
    throw error instanceof Refusal ? error : new Refusal('its compression cannot be undone; it may be cut short');
  }
  const bytes = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

function tooLarge(): Refusal {
  return new Refusal('it has more than 64 MiB of text; this page reads less. `darkroom submit --batch FILE` takes it');
}
