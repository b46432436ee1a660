// Which page a path shows, and the scope that it needs.
import type { Component } from 'svelte';
import Admin from '../pages/admin/Admin.svelte';
import Compare from '../pages/Compare.svelte';
import Failures from '../pages/Failures.svelte';
import Farm from '../pages/Farm.svelte';
import Image from '../pages/Image.svelte';
import Job from '../pages/Job.svelte';
import Jobs from '../pages/Jobs.svelte';
import Missing from '../pages/Missing.svelte';
import Submit from '../pages/Submit.svelte';
import Workers from '../pages/Workers.svelte';
import { match } from './match';

type NeededScope = 'read' | 'submit' | 'operate' | 'admin' | null;

interface Route {
  pattern: string;
  title: string;
  scope: NeededScope;
  component: Component<never>;
}

export interface Shown {
  title: string;
  scope: NeededScope;
  component: Component<Record<string, string>>;
  parts: Record<string, string>;
  /** A page with another key is built anew. The neighbours of an image share one. */
  key: string;
}

const ROUTES: Route[] = [
  { pattern: '', title: 'Jobs', scope: 'read', component: Jobs },
  { pattern: '/jobs', title: 'Jobs', scope: 'read', component: Jobs },
  { pattern: '/submit', title: 'Submit', scope: 'submit', component: Submit },
  { pattern: '/jobs/:job', title: 'Job', scope: 'read', component: Job },
  { pattern: '/jobs/:job/images/:index', title: 'Image', scope: 'read', component: Image },
  { pattern: '/compare', title: 'Compare', scope: 'read', component: Compare },
  { pattern: '/workers', title: 'Workers', scope: 'operate', component: Workers },
  { pattern: '/farm', title: 'Farm', scope: 'read', component: Farm },
  { pattern: '/failures', title: 'Failures', scope: 'read', component: Failures },
  { pattern: '/admin', title: 'Administration', scope: 'admin', component: Admin },
  { pattern: '/admin/:part', title: 'Administration', scope: 'admin', component: Admin },
];

export function pageFor(path: string): Shown {
  for (const route of ROUTES) {
    const parts = match(route.pattern, path);
    if (parts) return { ...route, component: route.component as Shown['component'], parts, key: `${route.pattern} ${parts.job ?? ''}` };
  }
  return { title: 'Not found', scope: null, component: Missing as Shown['component'], parts: {}, key: path };
}
