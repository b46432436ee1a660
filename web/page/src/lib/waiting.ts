// "Why is this waiting?": the farm's sentence, what it means, and what can be done about it.
import { count } from './format';
import type { Job, QueuePool } from './types';
import { toNumber } from './u64';

type WaitingAction = 'resume' | 'cancel' | 'workers' | 'farm' | 'usage' | 'retry' | 'retry-without-deadline' | 'render-lost';

export interface Waiting {
  why: string;
  advice: string;
  actions: WaitingAction[];
}

/** Why a job does not advance; `null` if nothing holds it up. */
export function whyWaiting(job: Job): Waiting | null {
  if (job.state === 'paused') {
    return {
      why: 'The job is paused.',
      advice: 'Nothing new starts until it is resumed. Stages that were running have finished and are kept.',
      actions: ['resume'],
    };
  }
  if (job.state === 'receiving') {
    return {
      why: 'Its prompts are still arriving.',
      advice: 'Nothing starts before the last prompt is there. An upload that is given up leaves nothing behind.',
      actions: ['cancel'],
    };
  }
  if (job.state !== 'active' || job.waiting_for === '') return null;
  return { why: `${capital(job.waiting_for)}.`, ...advise(job) };
}

function advise(job: Job): Omit<Waiting, 'why'> {
  const why = job.waiting_for;
  const stage = /no worker serves stage (\S+)/.exec(why)?.[1];
  if (stage) {
    return {
      advice: `It goes on as soon as a worker for ${stage} joins. If one should be running, look at the workers: it may be drained, set aside, or in trouble.`,
      actions: ['workers', 'cancel'],
    };
  }
  if (why.startsWith('waiting behind')) {
    return {
      advice: `${count(job.tasks_ahead)} tasks of other jobs go first. Jobs share the workers fairly, so it moves up by itself. An interactive job goes before all batch work.`,
      actions: ['farm'],
    };
  }
  if (why.startsWith('its limit of')) {
    return {
      advice: 'The job itself says how many workers it may keep busy. More may be free. A new job can have a higher limit, or none.',
      actions: ['farm'],
    };
  }
  if (why.startsWith('quota')) {
    return {
      advice: 'What the tenant may use is used up for now. The sentence says which quota it is. An administrator can raise it while the farm runs.',
      actions: ['usage'],
    };
  }
  if (why.startsWith('this farm does not have cascade')) {
    return {
      advice: 'The job can only go on if the farm is started with that cascade again.',
      actions: ['cancel'],
    };
  }
  return {
    advice: 'The farm goes on by itself when this has passed. Nothing that was accepted is lost.',
    actions: ['farm'],
  };
}

/** Why a job ended early, and what can be done; `null` if it ended as it should. */
export function whyEnded(job: Job): Waiting | null {
  if (job.end_code === 'deadline') {
    return {
      why: sentenceOf(job.end_reason, 'The deadline passed.'),
      advice: 'Finished pictures stay. A retry runs the rest; it needs the deadline removed.',
      actions: ['retry-without-deadline'],
    };
  }
  if (job.end_reason !== '') {
    return {
      why: sentenceOf(job.end_reason, ''),
      advice: 'Look at the failures below before you run it again.',
      actions: ['retry'],
    };
  }
  return null;
}

/** Why the tasks of a pool wait; `null` if they do not. The farm's troubles may be the reason. */
export function whyPoolWaits(pool: QueuePool, troubles: string[] = []): { why: string; advice: string } | null {
  const ready = toNumber(pool.ready);
  const waiting = ready + toNumber(pool.dispatched);
  if (waiting === 0) return null;
  const full = troubles.find((trouble) => trouble.includes(' is full'));
  if (full !== undefined) {
    return { why: `${capital(full)}.`, advice: 'Running tasks finish, but no new ones start until there is room. Then the work goes on by itself.' };
  }
  if (toNumber(pool.workers) === 0) {
    const what = pool.stage === 'encode' ? 'encoder' : 'worker';
    return {
      why: `No ${what} serves ${pool.stage} of ${pool.cascade}.`,
      advice: `Start one, or look at why those that should run do not. ${count(waiting)} tasks wait for it.`,
    };
  }
  if (pool.images_per_second === 0 && toNumber(pool.leased) > 0) {
    return { why: 'The first results are not back yet.', advice: 'Workers hold tasks. The first batch of a new worker takes longer.' };
  }
  if (ready > 0) {
    return {
      why: 'There is more work than its workers can do at once.',
      advice: 'It shrinks by itself. Another worker for this stage would make it faster.',
    };
  }
  return null;
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function sentenceOf(text: string, otherwise: string): string {
  return text === '' ? otherwise : `${capital(text)}${/[.!?]$/.test(text) ? '' : '.'}`;
}
