-- A client's own notes on its jobs, and finding jobs by state without a look at others.
ALTER TABLE jobs ADD COLUMN labels TEXT; -- JSON, an object of strings; NULL: none

CREATE INDEX jobs_by_state ON jobs (state, seq);
