// The JSON forms of what administrators see and set.
import type { JobState, QuotaUsage, Quotas, Scope } from './types';
import type { U64 } from './u64';

export interface Key {
  id: string;
  tenant: string;
  scopes: Scope[];
  label: string;
  created: number | null;
  expires: number | null;
  last_used: number | null;
  revoked: number | null;
  certificate?: string;
}

export interface NewKey {
  key: Key;
  secret: string;
  old?: Key;
}

export type Sharing = 'default' | 'shared' | 'sealed';

export interface Tenant {
  name: string;
  created: number | null;
  sharing: Sharing;
  quotas: Quotas | null;
  usage: QuotaUsage | null;
  notes: string[];
}

type Subject = 'jobs' | 'pictures' | 'intermediates' | 'embeddings' | 'inputs' | 'previews' | 'files' | 'unknown';

export interface Policy {
  tenant: string;
  subject: Subject;
  outcome: JobState;
  seconds: U64;
}

export interface Cleaning {
  expired_jobs: U64;
  jobs: U64;
  images: U64;
  outputs: U64;
  texts: U64;
  deleted: U64;
  failed: U64;
  waiting: U64;
  due: { policy: Policy | null; count: U64; bytes: U64; at_least: boolean }[];
  orphans: { kind: string; objects: U64; bytes: U64 }[];
  orphans_at_least: boolean;
  inputs: U64;
  previews: U64;
}

export interface AuditEntry {
  id: U64;
  time: number | null;
  key: string;
  tenant: string;
  action: string;
  target: string;
  peer: string;
}
