// Who uses the page, and what that allows.
import { session as api, onExpired } from './api';
import { Problem } from './problem';
import { router } from './router.svelte';
import type { Scope, Session } from './types';

type Status = 'starting' | 'in' | 'out' | 'unreachable';

const ENDED = 'The session has ended. Log in again to go on where you were.';

/** Scopes that allow what a scope allows. `admin` allows nothing else than administration. */
const GRANTED_BY: Record<string, Scope[]> = {
  read: ['read', 'submit', 'operate'],
  submit: ['submit', 'operate'],
  operate: ['operate'],
  admin: ['admin'],
};

/** Takes the key out of the address that `darkroom up` prints, so that it stays in no history. */
function keyInAddress(): string | null {
  const found = /^#key=(.+)$/.exec(location.hash);
  if (!found) return null;
  history.replaceState(null, '', location.pathname + location.search);
  return decodeURIComponent(found[1]);
}

class SessionState {
  status = $state<Status>('starting');
  who = $state.raw<Session | null>(null);
  /** Why the last login did not work, or why there is none. */
  why = $state('');
  #others = 'BroadcastChannel' in globalThis ? new BroadcastChannel('darkroom-session') : null;

  async start(): Promise<void> {
    onExpired(() => this.#expire());
    this.#others?.addEventListener('message', () => void this.#read());
    const key = keyInAddress();
    if (key !== null && await this.login(key)) return;
    await this.#read();
  }

  /** Whether the caller may do what needs this scope. */
  can(scope: 'read' | 'submit' | 'operate' | 'admin'): boolean {
    if (this.who === null) return false;
    return this.who.open || this.who.scopes.some((one) => GRANTED_BY[scope].includes(one));
  }

  async login(key: string): Promise<boolean> {
    try {
      this.#in(await api.begin(key.trim()));
      this.#others?.postMessage('changed');
      return true;
    } catch (error) {
      this.why = error instanceof Problem ? error.detail : String(error);
      return false;
    }
  }

  async logout(): Promise<void> {
    await api.end();
    this.#others?.postMessage('changed');
    this.who = null;
    this.status = 'out';
    this.why = '';
    router.go('/login');
  }

  /** Asks again after the farm could not be reached. */
  async again(): Promise<void> {
    await this.#read();
  }

  /** Goes to the login, to come back here afterwards. */
  toLogin(): void {
    if (router.path === '/login') return;
    const back = router.address === '/' ? '' : `?to=${encodeURIComponent(router.address)}`;
    router.go(`/login${back}`, { replace: true });
  }

  #in(who: Session): void {
    this.who = who;
    this.status = 'in';
    this.why = '';
    if (router.path === '/login') router.go(this.#back(), { replace: true });
  }

  #back(): string {
    const to = router.query.get('to') ?? '/';
    // Only an address on this page: `//host` and `/\host` would lead elsewhere.
    return /^\/(?![/\\])/.test(to) && !to.startsWith('/login') ? to : '/';
  }

  #expire(): void {
    if (this.status !== 'in') return;
    this.who = null;
    this.status = 'out';
    this.why = ENDED;
    this.toLogin();
  }

  async #read(): Promise<void> {
    try {
      this.#in(await api.read());
    } catch (error) {
      const refused = error instanceof Problem && (error.status === 401 || error.status === 403);
      this.who = null;
      if (refused) {
        if (this.status === 'in') this.why = ENDED;
        this.status = 'out';
        this.toLogin();
      } else {
        this.status = 'unreachable';
        this.why = error instanceof Problem ? error.detail : String(error);
      }
    }
  }
}

export const session = new SessionState();
