// Filters of the list of jobs: in the address, in requests, and against jobs that the stream tells.
import type { JobFilter } from './api';
import { JOB_STATES } from './states';
import type { Job } from './types';

/** The names that the filter has in the address. */
export const FILTER_NAMES = ['state', 'label', 'name', 'text', 'tenant', 'from', 'to'] as const;

export function fromQuery(query: URLSearchParams): JobFilter {
  const filter: JobFilter = {};
  const states = query.getAll('state');
  if (states.length > 0) filter.state = states;
  const labels = query.getAll('label').flatMap((one) => {
    const at = one.indexOf('=');
    return at > 0 ? [[one.slice(0, at), one.slice(at + 1)] as const] : [];
  });
  if (labels.length > 0) filter.label = Object.fromEntries(labels);
  for (const name of ['name', 'text', 'tenant'] as const) {
    const value = query.get(name)?.trim();
    if (value) filter[name] = value;
  }
  const from = dayStart(query.get('from'), 0);
  const to = dayStart(query.get('to'), 1);
  if (from) filter.created_from = from;
  if (to) filter.created_to = to;
  return filter;
}

/** Beginning of a day in the reader's zone, or of a later one, as the API takes times. */
export function dayStart(day: string | null, later: number): string | null {
  const parts = /^(\d{4})-(\d\d)-(\d\d)$/.exec(day ?? '');
  if (!parts) return null;
  const date = new Date(Number(parts[1]), Number(parts[2]) - 1, Number(parts[3]) + later);
  return Number.isNaN(date.getTime()) ? null : date.toISOString();
}

export function isEmpty(filter: JobFilter): boolean {
  return Object.keys(filter).length === 0;
}

/** Whether a job fits, as far as the page can tell: only the farm knows the texts of prompts. */
export function fits(filter: JobFilter, job: Job): boolean {
  const name = job.name.toLowerCase();
  if (!(filter.state ?? JOB_STATES).includes(job.state)) return false;
  if (filter.tenant && job.tenant !== filter.tenant) return false;
  if (filter.name && !name.includes(filter.name.toLowerCase())) return false;
  if (filter.text && !name.includes(filter.text.toLowerCase())) return false;
  for (const [key, value] of Object.entries(filter.label ?? {})) {
    if (job.labels?.[key] !== value) return false;
  }
  const created = (job.created_at ?? 0) * 1000;
  if (filter.created_from && created < Date.parse(filter.created_from)) return false;
  return !(filter.created_to && created >= Date.parse(filter.created_to));
}

/** The filter in words, for confirmations. */
export function words(filter: JobFilter): string {
  const parts: string[] = [];
  if (filter.state) parts.push(`state ${filter.state.join(' or ')}`);
  if (filter.tenant) parts.push(`tenant ${filter.tenant}`);
  if (filter.name) parts.push(`name contains “${filter.name}”`);
  if (filter.text) parts.push(`text contains “${filter.text}”`);
  for (const [key, value] of Object.entries(filter.label ?? {})) parts.push(`label ${key}=${value}`);
  if (filter.created_from) parts.push(`since ${new Date(filter.created_from).toLocaleDateString()}`);
  if (filter.created_to) parts.push(`before ${new Date(filter.created_to).toLocaleDateString()}`);
  return parts.join(', ');
}
