// A farm of a test's own: one `darkroom up` on loopback with a renderer that draws noise.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { within } from './within.mjs';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
const BINARY = process.env.DARKROOM_BIN ?? join(ROOT, 'target/debug/darkroom');
const CASCADE = join(ROOT, 'models/demo');
const START_MS = 60_000;
const STOP_MS = 30_000;
const ANSWER_MS = 30_000;
const LINES_KEPT = 15;

/** Processes that still run; none outlives the tests. */
const running = new Set();
process.on('exit', () => running.forEach((child) => child.kill('SIGKILL')));
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.once(signal, () => process.exit(1));

export class Farm {
  /** `host:port`; the same after a restart. */
  address = '127.0.0.1:0';
  /** A key that may do everything. */
  key = '';
  /** The last lines of the log, for a test that fails. */
  log = [];
  #state = mkdtempSync(join(tmpdir(), 'darkroom-browser-'));
  #child = null;

  /** @param {string[]} flags of `darkroom up` */
  constructor(flags = []) {
    this.flags = flags;
  }

  get url() {
    return `http://${this.address}`;
  }

  /** Starts the farm and waits until it serves. */
  async start() {
    const fake = this.flags.includes('--renderer') ? [] : ['--renderer', 'fake'];
    const args = ['--state', this.#state, 'up', '--json', '--listen', this.address, '--cascade', CASCADE];
    const child = spawn(BINARY, [...args, ...fake, ...this.flags], { env: ownEnvironment(), stdio: ['ignore', 'pipe', 'pipe'] });
    running.add(child);
    this.#child = child;
    createInterface({ input: child.stderr }).on('line', (line) => {
      this.log.push(line);
      if (this.log.length > LINES_KEPT) this.log.shift();
    });
    const lines = createInterface({ input: child.stdout });
    const failed = new Promise((_, reject) => {
      child.once('error', (error) => reject(new Error(`${BINARY} cannot be started: ${error.message}`)));
      child.once('exit', (code) => {
        running.delete(child);
        reject(new Error(`the farm ended with ${code}:\n${this.log.join('\n')}`));
      });
    });
    failed.catch(() => {});
    const [line] = await within(START_MS, 'the farm says its address', Promise.race([once(lines, 'line'), failed]));
    this.address = JSON.parse(line).address;
    this.key = readFileSync(join(this.#state, 'farm.key'), 'utf8').trim();
    return this;
  }

  /** Ends the farm as a power failure does; `start` continues it at the same address. */
  async kill() {
    await this.#end('SIGKILL');
  }

  /** Ends the farm and removes its state. */
  async remove() {
    await this.#end('SIGKILL');
    rmSync(this.#state, { recursive: true, force: true });
  }

  async #end(signal) {
    const child = this.#child;
    this.#child = null;
    if (child === null) return;
    if (child.exitCode === null && child.signalCode === null) {
      const ended = once(child, 'exit');
      child.kill(signal);
      await within(STOP_MS, 'the farm ends', ended);
    }
  }

  /** Sends a request to the JSON API, and returns the answer's body. */
  async api(method, path, body, { key = this.key } = {}) {
    const answer = await fetch(`${this.url}/api/v1${path}`, {
      method,
      headers: { Authorization: `Bearer ${key}`, ...(body === undefined ? {} : { 'Content-Type': 'application/json' }) },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(ANSWER_MS),
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
    return text === '' ? null : JSON.parse(text);
  }

  /** Submits a job and returns it. Pictures have 64 pixels unless the specification says otherwise. */
  async submit(spec, prompts = ['a red circle'], { key } = {}) {
    const whole = { settings: { size: 64 }, ...spec };
    const { job } = await this.api('POST', '/jobs', { spec: whole, prompts: prompts.map((text) => ({ text })) }, { key });
    return job;
  }

  /** Waits until a job has ended, told by the job's events, and returns it. */
  async ended(job, timeoutMs = 60_000) {
    const answer = await fetch(`${this.url}/api/v1/jobs/${job.id}/events`, {
      headers: { Authorization: `Bearer ${this.key}` },
      signal: AbortSignal.timeout(timeoutMs),
    });
    let told = '';
    for await (const part of answer.body) {
      told = (told + Buffer.from(part).toString()).slice(-200);
      if (/^event: ?end/m.test(told)) break;
    }
    return this.api('GET', `/jobs/${job.id}`);
  }

  /** Makes a key of a tenant and returns it: `{ secret, id }`. */
  async makeKey(tenant, scopes) {
    const { key, secret } = await this.api('POST', '/keys', { tenant, scopes, label: 'test' });
    return { secret, id: key.id };
  }
}

/** Settings of whoever runs the tests must not reach the farm. */
function ownEnvironment() {
  const kept = Object.entries(process.env).filter(([name]) => !name.startsWith('DARKROOM_'));
  return { ...Object.fromEntries(kept), DARKROOM_FARM: '', RUST_LOG: 'warn' };
}
