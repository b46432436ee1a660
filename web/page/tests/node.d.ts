// The little of Node that the tests use.
declare module 'node:child_process' {
  export function execFileSync(file: string, args: string[], options?: { encoding: 'utf8' }): string;
}
