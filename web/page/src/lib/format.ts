// Numbers, times and sizes for people.
import { toNumber, type U64 } from './u64';

const whole = new Intl.NumberFormat('en');

export function count(value: U64 | null | undefined): string {
  return typeof value === 'string' ? whole.format(BigInt(value)) : whole.format(value ?? 0);
}

/** "1 image", "2,000 images". */
export function counted(value: U64, one: string, several = `${one}s`): string {
  return `${count(value)} ${toNumber(value) === 1 ? one : several}`;
}

/** A span as two units at most: "3 h 20 min". */
export function span(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return 'unknown';
  if (seconds < 1) return seconds <= 0 ? '0 s' : `${Math.max(1, Math.round(seconds * 1000))} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const rounded = Math.round(seconds);
  if (rounded < 60) return `${rounded} s`;
  const units: [number, string][] = [[86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']];
  const at = units.findIndex(([size]) => rounded >= size);
  const [size, name] = units[at];
  const [small, smallName] = units[at + 1] ?? [1, ''];
  const rest = Math.floor((rounded % size) / small);
  const first = `${Math.floor(rounded / size)} ${name}`;
  return rest > 0 && smallName !== '' ? `${first} ${rest} ${smallName}` : first;
}

/** How long ago a time was, or how far ahead it lies. */
export function ago(at: number | null | undefined, now: number): string {
  if (at === null || at === undefined) return 'never';
  const seconds = now - at;
  if (Math.abs(seconds) < 5) return 'just now';
  const roughly = coarse(Math.abs(seconds));
  return seconds > 0 ? `${roughly} ago` : `in ${roughly}`;
}

function coarse(seconds: number): string {
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  if (seconds < 2 * 86400) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

/** A time in the reader's zone. */
export function clock(at: number | null | undefined): string {
  if (at === null || at === undefined) return 'unknown';
  const date = new Date(at * 1000);
  const pad = (value: number): string => String(value).padStart(2, '0');
  return `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())} ` +
    `${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}`;
}

export function bytes(value: U64 | null | undefined): string {
  let size = toNumber(value);
  for (const unit of ['B', 'KiB', 'MiB', 'GiB', 'TiB']) {
    if (size < 1024 || unit === 'TiB') return unit === 'B' ? `${size} B` : `${size.toFixed(size < 10 ? 1 : 0)} ${unit}`;
    size /= 1024;
  }
  return '';
}

export function percent(share: number | null | undefined): string {
  return share === null || share === undefined ? 'unknown' : `${Math.round(share * 100)} %`;
}

/** A rate as people say it: never "0.0". */
export function rate(perSecond: number): string {
  if (perSecond <= 0) return '0/s';
  if (perSecond >= 1) return `${perSecond.toFixed(perSecond < 10 ? 1 : 0)}/s`;
  const perMinute = perSecond * 60;
  return perMinute >= 1 ? `${perMinute.toFixed(perMinute < 10 ? 1 : 0)}/min` : `${(perMinute * 60).toFixed(1)}/h`;
}

/** The short form of a long hexadecimal name. */
export function short(digest: string): string {
  return digest.slice(0, 12);
}
