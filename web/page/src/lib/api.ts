// Every request of the page to the farm. The forms are those of docs/http.md.
import type { AuditEntry, Cleaning, Key, NewKey, Policy, Sharing, Tenant } from './admin-types';
import { isAborted, Problem, problemOf } from './problem';
import type * as t from './types';
import type { U64 } from './u64';

export const ROOT = '/api/v1';

type Value = string | number | boolean | null | undefined;
type Query = Record<string, Value | readonly Value[] | t.Labels>;

interface Options {
  query?: Query;
  json?: unknown;
  body?: BodyInit;
  type?: string;
  headers?: Record<string, string>;
  signal?: AbortSignal;
  /** Whether a refusal for lack of a login is expected, and is no end of the session. */
  quiet?: boolean;
}

export interface JobFilter {
  state?: string[];
  label?: t.Labels;
  name?: string;
  text?: string;
  tenant?: string;
  created_from?: string;
  created_to?: string;
  oldest_first?: boolean;
}

let expired: () => void = () => {};
let caller = new AbortController();

/** Ends the calls of a caller who is gone, so that no answer to them is taken for the next caller's. */
export function endCalls(): void {
  caller.abort();
  caller = new AbortController();
}

/** It is aborted when the caller goes. */
export function callerSignal(): AbortSignal {
  return caller.signal;
}

/** What happens when the farm no longer accepts the session. */
export function onExpired(handler: () => void): void {
  expired = handler;
}

/** A query as the API takes it: lists repeat their name, labels are `KEY=VALUE`. */
export function queryString(query: Query): string {
  const parts = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (Array.isArray(value)) {
      for (const one of value as readonly Value[]) parts.append(name, String(one));
    } else if (value !== null && typeof value === 'object') {
      for (const [key, label] of Object.entries(value)) parts.append(name, `${key}=${label}`);
    } else if (value !== undefined && value !== null && value !== '' && value !== false) {
      parts.append(name, String(value));
    }
  }
  const text = parts.toString();
  return text === '' ? '' : `?${text}`;
}

/** Sends a request and returns the answer, whatever its body is. */
export async function send(method: string, path: string, options: Options = {}): Promise<Response> {
  const headers: Record<string, string> = { Accept: 'application/json', ...options.headers };
  let body = options.body;
  if (options.json !== undefined) body = JSON.stringify(options.json);
  // The farm reads an empty body with a type as broken JSON.
  if (body !== undefined) headers['Content-Type'] = options.type ?? 'application/json';
  // A view ends its own calls when it goes, and with the caller all views go.
  const signal = options.signal ?? (options.quiet ? null : caller.signal);
  return answerTo(ROOT + path + queryString(options.query ?? {}), { method, headers, body: body ?? null, signal }, options.quiet);
}

/** The answer from an address of the farm; whatever else comes is thrown as a `Problem`. */
export async function answerTo(url: string, init: RequestInit & { signal: AbortSignal | null }, quiet = false): Promise<Response> {
  let answer: Response;
  try {
    answer = await fetch(url, { credentials: 'same-origin', ...init });
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw lost();
  }
  if (answer.ok) return answer;
  const problem = await problemOf(answer);
  init.signal?.throwIfAborted();
  if (problem.status === 401 && !quiet) expired();
  throw problem;
}

function lost(): Problem {
  return new Problem('The farm does not answer. It may be restarting, or the network is down.', 0, '', null, null);
}

async function call<T>(method: string, path: string, options: Options = {}): Promise<T> {
  const answer = await send(method, path, options);
  if (answer.status === 204) return undefined as T;
  return (await answer.json().catch((error) => {
    // An answer that was cut short is none.
    throw isAborted(error) ? error : lost();
  })) as T;
}

const get = <T>(path: string, query: Query = {}, signal?: AbortSignal): Promise<T> =>
  call<T>('GET', path, signal ? { query, signal } : { query });

const id = encodeURIComponent;
const job = (one: string): string => `/jobs/${id(one)}`;
const image = (one: string, index: U64): string => `${job(one)}/images/${id(String(index))}`;

export const session = {
  read: () => call<t.Session>('GET', '/session', { quiet: true }),
  begin: (key: string) => call<t.Session>('POST', '/session', { json: { key }, quiet: true }),
  end: () => call<void>('DELETE', '/session', { quiet: true }),
};

export const display = () => get<t.Display | null>('/display');

export const jobs = {
  list: (filter: JobFilter, page: { page_size: number; page_token?: string }, signal?: AbortSignal) =>
    get<{ jobs: t.Job[]; next_page_token: string }>('/jobs', { ...filter, ...page }, signal),
  get: (one: string, signal?: AbortSignal) => get<t.Job>(job(one), {}, signal),
  remove: (one: string, cancel: boolean) => call<{ deleted: boolean }>('DELETE', job(one), { query: { cancel } }),
  pause: (one: string) => call<t.Job>('PUT', `${job(one)}/pause`),
  resume: (one: string) => call<t.Job>('DELETE', `${job(one)}/pause`),
  cancel: (one: string) => call<t.Job>('PUT', `${job(one)}/cancellation`),
  retry: (one: string, options: { no_deadline?: boolean } = {}) =>
    call<t.Job>('POST', `${job(one)}/retries`, { json: options }),
  failures: (one: string, signal?: AbortSignal) =>
    get<{ failures: t.FailureSummary[]; more_codes: boolean }>(`${job(one)}/failures`, {}, signal),
  map: (one: string, query: { first_index?: U64; since_version?: U64 }, signal?: AbortSignal) =>
    get<t.ImageMapAnswer>(`${job(one)}/image-map`, query, signal),
  retryImages: (one: string, json: { filter?: t.ImageFilter; dry_run?: boolean; lost?: boolean; page_token?: string; no_deadline?: boolean }, signal: AbortSignal) =>
    call<{ job: t.Job; images: U64; at_least: boolean; checked: U64; skipped_intact: U64; next_page_token: string }>(
      'POST', `${job(one)}/image-retries`, { json, signal }),
  submit: (body: { body: BodyInit; type: string }, key: string) =>
    call<{ job: t.Job; existed: boolean }>('POST', '/jobs', { ...body, headers: { 'Idempotency-Key': key } }),
  forecast: (body: { body: BodyInit; type: string }, signal: AbortSignal) =>
    call<t.ForecastAnswer>('POST', '/forecasts', { ...body, signal }),
};

export const images = {
  list: (one: string, query: { state?: string[]; text?: string; page_size: number; page_token?: string; start_index?: U64 }, signal?: AbortSignal) =>
    get<{ images: t.Image[]; next_page_token: string }>(`${job(one)}/images`, query, signal),
  get: (one: string, index: U64, signal?: AbortSignal) =>
    get<{ image: t.Image; attempts: t.Attempt[] }>(image(one, index), {}, signal),
  link: (one: string, index: U64, json: { link_seconds: number; stage?: string }) =>
    call<t.Link>('POST', `${image(one, index)}/links`, { json }),
  /**
   * Address of a picture, for `<img>` and downloads. One with a `version` is cached for long, so the
   * version has to change when the picture may have.
   */
  picture: (one: string, index: U64, query: { stage?: string; max_edge?: number; download?: boolean; version?: string | number } = {}) =>
    `${ROOT}${image(one, index)}/picture${queryString(query)}`,
};

export const sheetPath = (one: string, query: { first_index: number; count: number; tile: number; columns: number }) =>
  `${job(one)}/sheet${queryString(query)}`;
export const manifestUrl = (one: string): string => `${ROOT}${job(one)}/manifest`;
export const eventsUrl = (cursor: string): string => `${ROOT}/events${queryString({ cursor })}`;

export const inputs = {
  upload: (picture: Blob, signal?: AbortSignal) =>
    call<t.Upload>('POST', '/inputs', { body: picture, type: picture.type, ...(signal ? { signal } : {}) }),
};

export const farm = {
  get: (signal?: AbortSignal) => get<t.FarmAnswer>('/farm', {}, signal),
  cascades: () => get<{ cascades: t.Cascade[] }>('/cascades'),
  queue: (signal?: AbortSignal) => get<{ pools: t.QueuePool[] }>('/queue', {}, signal),
  history: (query: { from: number; step_seconds: number }, signal?: AbortSignal) =>
    get<{ pools: t.PoolHistory[] }>('/history', query, signal),
  usage: (query: { tenant?: string; from_day?: string; to_day?: string; page_size?: number; page_token?: string }, signal?: AbortSignal) =>
    get<t.UsageAnswer>('/usage', query, signal),
  workers: (signal?: AbortSignal) => get<{ workers: t.Worker[] }>('/workers', {}, signal),
  drain: (json: { worker: string } | { host: string }) => call<{ workers: t.Worker[] }>('POST', '/drains', { json }),
};

export const admin = {
  keys: (query: { tenant?: string; ended?: boolean; page_token?: string }, signal?: AbortSignal) =>
    get<{ keys: Key[]; next_page_token: string }>('/keys', query, signal),
  createKey: (json: { tenant: string; scopes: t.Scope[]; label: string; expires_after_seconds: number; certificate?: string }) =>
    call<NewKey>('POST', '/keys', { json }),
  revokeKey: (key: string) => call<Key>('DELETE', `/keys/${id(key)}`),
  rotateKey: (key: string, keep_seconds: number) =>
    call<NewKey>('POST', `/keys/${id(key)}/rotations`, { json: { keep_seconds } }),
  tenants: (query: { page_token?: string }, signal?: AbortSignal) =>
    get<{ tenants: Tenant[]; next_page_token: string }>('/tenants', query, signal),
  setTenant: (name: string, json: { sharing?: Sharing; quotas?: t.Quotas; clear?: string[] }) =>
    call<Tenant>('PATCH', `/tenants/${id(name)}`, { json }),
  retention: (signal?: AbortSignal) => get<{ policies: Policy[] }>('/retention', {}, signal),
  setRetention: (json: { tenant: string; subject: string; outcome?: string; seconds: U64 }) =>
    call<Policy>('PUT', '/retention', { json }),
  clean: (json: { dry_run?: boolean; orphans?: boolean; remove?: boolean }) =>
    call<Cleaning>('POST', '/cleanings', { json }),
  audit: (query: { tenant?: string; key?: string; since?: string; page_size: number; page_token?: string }, signal?: AbortSignal) =>
    get<{ entries: AuditEntry[]; next_page_token: string }>('/audit', query, signal),
};
