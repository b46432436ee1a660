-- How often a job that was submitted needed a text that had been encoded before. Only stage encode counts them.

ALTER TABLE work_log ADD COLUMN reused INTEGER NOT NULL DEFAULT 0;
ALTER TABLE history ADD COLUMN reused INTEGER NOT NULL DEFAULT 0;
