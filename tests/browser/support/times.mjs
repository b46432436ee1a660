// A reporter for node's test runner: what each test said, why it failed, and a table of times.

/** @param {AsyncIterable<{type: string, data: any}>} source */
export default async function* times(source) {
  const rows = [];
  for await (const { type, data } of source) {
    if (type === 'test:diagnostic' && !/^(tests|suites|pass|fail|cancelled|skipped|todo|duration_ms) [\d.]+$/.test(data.message)) {
      yield `   ${data.message.replaceAll('\n', '\n   ')}\n`;
    }
    if (type !== 'test:pass' && type !== 'test:fail') continue;
    const passed = type === 'test:pass';
    const skipped = data.skip !== undefined;
    rows.push({ name: data.name, seconds: data.details.duration_ms / 1000, word: skipped ? 'skipped' : passed ? 'ok' : 'FAILED' });
    if (passed) continue;
    const error = data.details.error?.cause ?? data.details.error;
    yield `\n== FAILED: ${data.name}\n${error?.stack ?? error}\n`;
  }
  yield '\n seconds  result   test\n';
  for (const { name, seconds, word } of rows) yield `${seconds.toFixed(1).padStart(8)}  ${word.padEnd(7)}  ${name}\n`;
  const total = rows.reduce((sum, { seconds }) => sum + seconds, 0);
  const failed = rows.filter(({ word }) => word === 'FAILED').length;
  yield `${total.toFixed(1).padStart(8)}           ${rows.length} tests, ${failed} failed\n`;
}
