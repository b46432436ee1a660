import { execFileSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { commandLine, curl, pythonCode, type Source } from '../src/lib/request/code';
import { python, shell } from '../src/lib/request/quote';
import { USUAL } from '../src/lib/prompts/options';

const NASTY = ["it's", '"quoted"', '$HOME `id` $(id)', 'two\nlines', 'back\\slash \\n', '-n', '', 'é 日本 🦊', 'a\tb', '!history', '#x', '~', '*', '=ls', "'''", '\u2028'];
const source: Source = { origin: 'http://127.0.0.1:7878', keyed: true, file: null, picture: null, mask: null, negative: '', style: '' };

/** What a shell makes of the words behind a command. */
function words(text: string): string[] {
  const script = `show() { for word in "$@"; do printf '%s\\0' "$word"; done; }; show ${text}`;
  return execFileSync('sh', ['-c', script], { encoding: 'utf8' }).split('\0').slice(0, -1);
}

function hasPython(): boolean {
  try {
    execFileSync('python3', ['--version']);
    return true;
  } catch {
    return false;
  }
}

describe('words of a shell', () => {
  it('arrive as they were', () => {
    expect(words(NASTY.map(shell).join(' '))).toEqual(NASTY);
  });
  it('are not quoted without need', () => {
    expect(shell('base=20')).toBe('base=20');
    expect(shell('=ls'), 'zsh would look for a command').toBe("'=ls'");
    expect(shell('http://127.0.0.1:7878/x')).toBe('http://127.0.0.1:7878/x');
  });
});

describe('literals of Python', () => {
  it.skipIf(!hasPython())('mean the same as the JSON', () => {
    const value = { text: NASTY, yes: true, no: false, none: null, number: 1.5, list: [], object: {}, left: undefined };
    const script = `import json, sys\nsys.stdout.write(json.dumps(${python(value)}))`;
    const read = JSON.parse(execFileSync('python3', ['-c', script], { encoding: 'utf8' }));
    expect(read).toEqual(JSON.parse(JSON.stringify(value)));
  });
});

describe('the same request elsewhere', () => {
  const request = {
    spec: { images_per_prompt: 4, seed: '18446744073709551615', cascade: 'demo', settings: { width: 1024, height: 512, output: { format: 'jpeg' as const, quality: 85 }, stages: [{ stage: 'base', steps: 30, timesteps: [999, 500, 0] }] }, labels: { set: "a 'b'" }, priority: 'interactive' as const },
    prompts: [{ text: "a cat's $HOME", negative: '-dogs' }, { text: '-n 5' }],
  };
  it('is a command', () => {
    const { text } = commandLine(request, { ...source, negative: '-dogs' });
    expect(words(text)).toEqual(['darkroom', 'submit', '--images=4', '--seed=18446744073709551615', '--cascade=demo', '--width=1024', '--height=512', '--output-format=jpeg:85', '--steps=base=30', '--timesteps=base=999,500,0', "--label=set=a 'b'", '--interactive', '--negative=-dogs', '--', "a cat's $HOME", '-n 5']);
  });
  it('names the farm where the command line would not find it', () => {
    expect(commandLine(request, { ...source, origin: 'https://farm.example.org' }).text).toContain('--farm=https://farm.example.org');
  });
  it('names the dropped file and how it is read', () => {
    const file = { name: 'my prompts.csv', options: { ...USUAL, column: 'description', labels: 'none' as const } };
    expect(words(commandLine({ spec: {}, prompts: request.prompts }, { ...source, file, style: 'oil' }).text)).toEqual(['darkroom', 'submit', '--batch=my prompts.csv', '--column=description', '--no-labels', '--style=oil']);
  });
  it('is curl, with the whole request', () => {
    const all = words(curl(request, source).text.replace('"Authorization: Bearer $DARKROOM_KEY"', 'KEY'));
    expect(JSON.parse(all[all.indexOf('--data-raw') + 1])).toEqual(request);
    expect(curl(request, { ...source, keyed: false }).text).not.toContain('Authorization');
  });
  it.skipIf(!hasPython())('is Python that can be compiled', () => {
    const { text } = pythonCode(request, source);
    execFileSync('python3', ['-c', `compile(${python(text)}, 'job.py', 'exec')`]);
    expect(text).toContain('os.environ["DARKROOM_KEY"]');
  });
  it('puts many prompts into a file', () => {
    const many = { spec: {}, prompts: Array.from({ length: 30 }, (_, at) => ({ text: `prompt ${at}` })) };
    expect(commandLine(many, source).file?.content.split('\n')).toHaveLength(31);
    expect(curl(many, source).text).toContain('@request.json');
    expect(JSON.parse(curl(many, source).file!.content)).toEqual(many);
    expect(pythonCode(many, source).text).toContain('open("request.json"');
  });
});
