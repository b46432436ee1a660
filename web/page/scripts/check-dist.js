// Checks what `vite build` made: its size, and that a strict Content-Security-Policy allows it.
import { readFileSync, readdirSync, statSync } from 'node:fs';
import { join, relative } from 'node:path';
import { gzipSync } from 'node:zlib';

const DIST = new URL('../dist/', import.meta.url).pathname;
const LARGEST_SCRIPTS = 100_000;

function files(folder) {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name);
    return statSync(path).isDirectory() ? files(path) : [path];
  });
}

const faults = [];
let scripts = 0;
for (const path of files(DIST)) {
  const name = relative(DIST, path);
  const bytes = readFileSync(path);
  const packed = gzipSync(bytes, { level: 9 }).length;
  if (name.endsWith('.js')) scripts += packed;
  console.log(`${name}: ${bytes.length} bytes, ${packed} gzipped`);
  if (name !== 'index.html' && !/-[\w-]{8}\.\w+$/.test(name)) faults.push(`${name} has no hash in its name`);
}
if (scripts > LARGEST_SCRIPTS) faults.push(`the scripts have ${scripts} bytes gzipped; at most ${LARGEST_SCRIPTS} are allowed`);

const html = readFileSync(join(DIST, 'index.html'), 'utf8');
if (/<script(?![^>]*\ssrc=)/.test(html)) faults.push('index.html has an inline script');
if (/<style|\sstyle=/.test(html)) faults.push('index.html has inline styles');
if (/(?:src|href)="(?!\/)/.test(html)) faults.push('index.html loads something from another place');
for (const path of files(DIST).filter((one) => one.endsWith('.js'))) {
  const script = readFileSync(path, 'utf8');
  // Templates become HTML, and a literal style attribute there is refused by the policy.
  if (/<[a-z][^<>`]*\sstyle="/.test(script)) faults.push(`${relative(DIST, path)} has a literal style attribute`);
  if (/\beval\(|new Function\(/.test(script)) faults.push(`${relative(DIST, path)} makes code from text`);
}

console.log(`JavaScript: ${(scripts / 1000).toFixed(1)} kB gzipped, of ${LARGEST_SCRIPTS / 1000} kB`);
if (faults.length > 0) {
  for (const fault of faults) console.error(`error: ${fault}`);
  process.exit(1);
}
