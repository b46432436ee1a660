// Who uses the page, and what that allows.
import { endCalls, onExpired, session as api } from './api';
import { notices } from './notices.svelte';
import { Problem, sentence } from './problem';
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
  try {
    return decodeURIComponent(found[1]);
  } catch {
    return found[1];
  }
}

class SessionState {
  status = $state<Status>('starting');
  who = $state.raw<Session | null>(null);
  /** Why the last login did not work, or why there is none. */
  why = $state('');
  /** Who was in last, also after the session ended. */
  #last = '';
  /** Grows with each login, logout and reading: an older answer does not undo a newer one. */
  #call = 0;
  #forget: () => void = () => {};
  #others = 'BroadcastChannel' in globalThis ? new BroadcastChannel('darkroom-session') : null;

  /** Which caller is in, as a name that no other caller has; empty if nobody is. */
  get caller(): string {
    return this.status === 'in' && this.who !== null ? nameOf(this.who) : '';
  }

  /** Calls `forget` before another caller is logged in, and after a logout. */
  async start(forget: () => void): Promise<void> {
    this.#forget = forget;
    onExpired(() => this.#expire());
    this.#others?.addEventListener('message', () => void this.#read());
    // A link with a key may be pasted into a page that is open.
    addEventListener('hashchange', () => {
      const pasted = keyInAddress();
      if (pasted !== null) void this.#take(pasted);
    });
    const key = keyInAddress();
    if (key === null) await this.#read();
    else await this.#take(key);
  }

  /** Whether the caller may do what needs this scope. */
  can(scope: 'read' | 'submit' | 'operate' | 'admin'): boolean {
    if (this.who === null) return false;
    return this.who.open || this.who.scopes.some((one) => GRANTED_BY[scope].includes(one));
  }

  async login(key: string): Promise<boolean> {
    try {
      const who = await api.begin(key.trim());
      this.#call += 1;
      this.#others?.postMessage('changed');
      this.#in(who);
      return true;
    } catch (error) {
      this.why = sentence(error);
      return false;
    }
  }

  async logout(): Promise<void> {
    await api.end();
    this.#call += 1;
    this.#others?.postMessage('changed');
    this.#out('');
    this.#last = '';
    this.#forget();
    router.go('/login');
  }

  /** Logs in with a key from the address. If it is refused, whoever was in stays in. */
  async #take(key: string): Promise<void> {
    if (await this.login(key)) return;
    const { why } = this;
    if (this.status === 'starting') await this.#read();
    // The login page says it itself.
    if (this.status === 'in') notices.show(`The key in the address was not accepted. ${why}`, 'bad');
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
    if (this.#last !== '' && this.#last !== nameOf(who)) this.#forget();
    this.#last = nameOf(who);
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
    this.#call += 1;
    endCalls();
    this.#out(ENDED);
    this.toLogin();
  }

  #out(why: string): void {
    this.who = null;
    this.status = 'out';
    this.why = why;
  }

  async #read(): Promise<void> {
    const mine = ++this.#call;
    try {
      const who = await api.read();
      if (mine === this.#call) this.#in(who);
    } catch (error) {
      if (mine !== this.#call) return;
      if (error instanceof Problem && (error.status === 401 || error.status === 403)) {
        this.#out(this.status === 'in' ? ENDED : this.why);
        this.toLogin();
      } else {
        this.who = null;
        this.status = 'unreachable';
        this.why = sentence(error);
      }
    }
  }
}

function nameOf(who: Session): string {
  return who.open ? 'open' : `${who.tenant ?? ''}/${who.key ?? ''}`;
}

export const session = new SessionState();
