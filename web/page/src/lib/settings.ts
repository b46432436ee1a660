// The settings of a stage: their names, in words, and what is accepted.
import type { StageSettings } from './types';

export interface Setting {
  key: Exclude<keyof StageSettings, 'stage'>;
  name: string;
  hint: string;
  kind: 'whole' | 'number' | 'word' | 'list';
  choices?: readonly string[];
  /** The flag of `darkroom submit`. */
  flag: string;
  /** Only stages after the first have it. */
  later?: boolean;
  /** Only jobs that start from pictures have it. */
  pictures?: boolean;
}

export const SETTINGS: readonly Setting[] = [
  { key: 'steps', name: 'Steps', hint: '1 to 1000', kind: 'whole', flag: 'steps' },
  { key: 'guidance_scale', name: 'Guidance', hint: '1 (none) to 100', kind: 'number', flag: 'guidance' },
  { key: 'sampler', name: 'Sampler', hint: '', kind: 'word', choices: ['ddpm', 'ddim', 'dpmsolver++', 'sde-dpmsolver++'], flag: 'sampler' },
  { key: 'noise_level', name: 'Noise level', hint: '0 to 999', kind: 'whole', flag: 'noise-level', later: true },
  { key: 'strength', name: 'Strength', hint: 'above 0, at most 1', kind: 'number', flag: 'strength', pictures: true },
  { key: 'preset', name: 'Preset', hint: 'a list of timesteps', kind: 'word', choices: ['fast27', 'smart27', 'smart50', 'smart100', 'smart185', 'super27', 'super40', 'super100'], flag: 'preset' },
  { key: 'timesteps', name: 'Timesteps', hint: 'descending: 999, 500, 0', kind: 'list', flag: 'timesteps' },
  { key: 'spacing', name: 'Spacing', hint: '', kind: 'word', choices: ['leading', 'linspace', 'trailing', 'configured'], flag: 'spacing' },
  { key: 'eta', name: 'Eta', hint: 'ddim only, 0 to 1', kind: 'number', flag: 'eta' },
  { key: 'guidance_schedule', name: 'Guidance schedule', hint: 'constant, 200..800, 20%..80%, oscillating:5:1', kind: 'word', flag: 'guidance-schedule' },
  { key: 'thresholding', name: 'Thresholding', hint: 'off, static:1, dynamic:99.5:1.5, configured', kind: 'word', flag: 'thresholding' },
  { key: 'cache_interval', name: 'Cache interval', hint: '1 (off) to 100', kind: 'whole', flag: 'cache-interval' },
];

/** A value for people; empty if there is none. */
export function shown(stage: StageSettings, key: Setting['key']): string {
  const value = stage[key];
  if (value === null || value === undefined) return '';
  return Array.isArray(value) ? value.join(', ') : String(value);
}
