// The JSON forms of the whole farm: its events, workers, queue, history and usage.
import type { Job } from './types';
import type { U64 } from './u64';

export interface FarmEvent {
  jobs: Job[];
  workers?: { workers: Worker[] };
  cursor: string;
  reset: boolean;
  caught_up: boolean;
  deleted_jobs?: string[];
}

export interface Worker {
  id: string;
  host: string;
  device: string;
  device_class: string;
  cascade_digest: string;
  state: string;
  tasks_leased: U64;
  tasks_done: U64;
  busy: number;
  last_seen: number | null;
  aside_reason: string;
  aside_until: number | null;
  trouble: string;
  stages: { stage: string; batch_cap: number; seconds_per_image: number; running: number; mean_batch: number }[];
  /** Absent: not reported. */
  memory?: { used_bytes: U64; total_bytes: U64 };
  /** Absent: 0. */
  tasks_failed?: U64;
  /** Absent: 0. */
  blamed_images?: U64;
  /** Absent: not reported. */
  version?: string;
}

export interface Coordinator {
  id: string;
  leads: boolean;
  last_seen: number | null;
  answers: boolean;
}

export interface QueuePool {
  stage: string;
  cascade: string;
  cascade_digest: string;
  ready: U64;
  dispatched: U64;
  leased: U64;
  oldest_seconds: number | null;
  work_seconds: number | null;
  workers: U64;
  batch_fill: number | null;
  images_per_second: number;
}

export interface HistoryPoint {
  at: number | null;
  done: U64;
  failed: U64;
  device_seconds: number;
  batches: number;
  reused: U64;
  minutes: number;
  ready: number | null;
  dispatched: number | null;
  leased: number | null;
  workers: number | null;
  oldest_seconds: number | null;
}

export interface PoolHistory {
  stage: string;
  cascade_digest: string;
  points: HistoryPoint[];
}

export interface TenantDay {
  tenant: string;
  day: string;
  device_seconds: number;
  tasks_done: U64;
  tasks_failed: U64;
}

export interface Quotas {
  images_waiting?: U64 | null;
  images_per_day?: U64 | null;
  device_seconds_per_day?: number | null;
  stored_bytes?: U64 | null;
  requests_per_second?: number | null;
  burst?: number | null;
  workers?: number | null;
  weight?: number | null;
}

export interface QuotaUsage {
  images_waiting: U64;
  images_today: U64;
  device_seconds_today: number;
  stored_bytes: U64;
  day_ends: number | null;
}

export interface UsageAnswer {
  days: TenantDay[];
  next_page_token: string;
  quotas?: Quotas;
  usage?: QuotaUsage;
}

export interface FarmAnswer {
  id: string;
  version: string;
  lease_seconds: number;
  cascades: string[];
  jobs_overlooked: U64;
  troubles: string[];
  /** Absent for callers without the scope `operate`, as is `storage`. */
  coordinators?: Coordinator[];
  storage?: string;
}
