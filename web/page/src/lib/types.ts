// The JSON forms of the farm's messages, as `proto/src/json` writes them.
import type { U64 } from './u64';

export type * from './farm-types';

export type JobState = 'unknown' | 'receiving' | 'active' | 'paused' | 'done' | 'failed' | 'cancelled';
export type ImageState = 'unknown' | 'waiting' | 'ready' | 'dispatched' | 'done' | 'dead' | 'cancelled';
export type Scope = 'read' | 'submit' | 'operate' | 'admin' | 'member' | 'unknown';
export type Format = 'png' | 'jpeg' | 'webp';
export type Fit = 'crop' | 'pad' | 'stretch' | 'exact';
export type Start = 'noise' | 'low-res' | 'picture' | 'masked';
export type Labels = Record<string, string>;

export interface Session {
  open: boolean;
  tenant: string | null;
  scopes: Scope[];
  key: string | null;
  expires_at: number | null;
}

export interface Display {
  currency: string | null;
  price_per_device_hour: number | null;
}

export interface StageSettings {
  stage: string;
  sampler?: string | null;
  steps?: number | null;
  preset?: string | null;
  timesteps?: number[];
  spacing?: string | null;
  eta?: number | null;
  guidance_scale?: number | null;
  guidance_schedule?: string | null;
  thresholding?: string | null;
  noise_level?: number | null;
  strength?: number | null;
  cache_interval?: number | null;
}

export interface Output {
  format?: Format;
  compression_level?: number | null;
  quality?: number | null;
}

export interface Settings {
  size?: number;
  width?: number;
  height?: number;
  start?: Start;
  start_stage?: string;
  fit?: Fit;
  output?: Output | null;
  stages?: StageSettings[];
}

export interface StageProgress {
  stage: string;
  done: U64;
  dispatched: U64;
  total: U64;
  images_per_second: number;
  stopped: U64;
}

export interface StageForecast {
  stage: string;
  images: U64;
  seconds_per_image: number | null;
  device_seconds: number | null;
  seconds: number | null;
}

export interface Forecast {
  at: number | null;
  device_seconds: number | null;
  seconds: number | null;
  stages: StageForecast[];
}

export interface ForecastCheck {
  stages: { stage: string; images: U64; forecast_device_seconds: number; device_seconds: number }[];
  forecast_device_seconds: number;
  device_seconds: number;
  device_seconds_ratio: number | null;
  forecast_seconds: number | null;
  seconds: number | null;
  seconds_ratio: number | null;
}

export interface Job {
  id: string;
  name: string;
  state: JobState;
  cascade: string;
  cascade_digest: string;
  priority: 'batch' | 'interactive';
  tenant: string;
  labels?: Labels;
  seed: U64 | null;
  images: U64;
  images_done: U64;
  images_dead: U64;
  images_cancelled: U64;
  stages: StageProgress[];
  fit?: Fit;
  width: number;
  height: number;
  output?: Output;
  settings: StageSettings[];
  waiting_for: string;
  tasks_ahead: U64;
  eta_seconds: number | null;
  forecast: Forecast | null;
  first_forecast: Forecast | null;
  forecast_check: ForecastCheck | null;
  device_seconds: number;
  deadline: number | null;
  deadline_missed_by_seconds: number | null;
  max_workers: number | null;
  max_failed_images: U64 | null;
  no_reuse?: boolean;
  end_code: string;
  end_reason: string;
  created_at: number | null;
  finished_at: number | null;
  version: U64;
  generation: number;
  manifest_key: string;
  manifest_sha256: string;
  notes: string[];
  pictures_removed_at?: number;
  pictures_removed_by?: string;
}

export interface Image {
  index: U64;
  state: ImageState;
  stage: string;
  prompt: string;
  negative: string;
  style?: string;
  image?: string;
  mask?: string;
  custom_id?: string;
  labels?: Labels;
  line?: U64;
  settings?: Settings;
  seed: U64;
  generation: number;
  dispatches: U64;
  failures: number;
  error_code: string;
  error: string;
  key: string;
  size_bytes: U64;
  sha256: string;
  format?: Format;
  device_class: string;
  version: U64;
  stage_seconds: { stage: string; seconds: number; worker: string }[];
  picture_removed_at?: number;
}

export interface Attempt {
  stage: string;
  generation: number;
  dispatch: U64;
  outcome: 'done' | 'failed' | 'died' | 'input-missing' | 'interrupted' | 'returned';
  counted: boolean;
  worker: string;
  place: string;
  device_class: string;
  seconds: number;
  ended_at: number | null;
  reason: string;
  message: string;
}

export interface ImageMapAnswer {
  version: U64;
  images: U64;
  first_index: U64;
  whole: boolean;
  stages: string[];
  codes: number[];
  lengths: U64[];
  skips?: U64[];
  next_index?: U64;
}

/** What a sheet shows, as its header says it. */
export interface Sheet {
  first_index: U64;
  tile: number;
  columns: number;
  rows: number;
  /** How many tiles show what. */
  tiles: Partial<Record<'empty' | 'filled' | 'later' | 'lost', number>>;
  version: U64;
}

export interface FailureSummary {
  code: string;
  images_dead: U64;
  images_not_dead: U64;
  at_least: boolean;
  first_index: U64;
  last_index: U64;
  example_index: U64;
  example: string;
}

export interface ImageFilter {
  ranges?: { first: U64; last: U64 }[];
  states?: ImageState[];
  error_codes?: string[];
  labels?: Labels;
  text?: string;
}

export interface Prompt {
  text: string;
  negative?: string;
  images?: number;
  seed?: U64;
  image?: string;
  mask?: string;
  style?: string;
  custom_id?: string;
  labels?: Labels;
  line?: number;
  settings?: Settings;
}

export interface JobSpec {
  cascade?: string;
  name?: string;
  tenant?: string;
  priority?: 'batch' | 'interactive';
  settings?: Settings;
  images_per_prompt?: number;
  seed?: U64;
  deadline?: number | string;
  max_workers?: number;
  max_failed_images?: U64;
  no_reuse?: boolean;
  labels?: Labels;
}

export interface ForecastAnswer {
  images: U64;
  cascade_digest: string;
  settings: StageSettings[];
  forecast: Forecast | null;
  notes?: string[];
}

export interface Upload {
  sha256: string;
  key: string;
  size_bytes: U64;
  width: number;
  height: number;
  is_mask: boolean;
  canonical_sha256: string;
  orientation: number;
  notes: string[];
}

export interface Link {
  url: string;
  expires_at: number | null;
  size_bytes: U64;
  sha256: string;
  format: Format;
}

export interface CascadeStage {
  name: string;
  size: number;
  size_multiple?: number;
  train_timesteps?: number;
  noise_timesteps?: number;
  defaults: StageSettings | null;
}

export interface Cascade {
  name: string;
  digest: string;
  description: string;
  stages: CascadeStage[];
}
