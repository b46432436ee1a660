// How a file of prompts is read.

export type FileFormat = 'text' | 'jsonl' | 'csv' | 'tsv' | 'json';

export const FORMATS: readonly FileFormat[] = ['text', 'jsonl', 'csv', 'tsv', 'json'];

export interface Options {
  /** `null`: name and content decide. */
  format: FileFormat | null;
  /** Column or key of the prompts; empty: one called prompt, caption or text. */
  column: string;
  /** What becomes of other columns and keys. `columns`: those of tables are labels, keys are refused. */
  labels: 'columns' | 'all' | 'none';
  /** Lines that begin with # are skipped. */
  comments: boolean;
}

export const USUAL: Options = { format: null, column: '', labels: 'columns', comments: false };
