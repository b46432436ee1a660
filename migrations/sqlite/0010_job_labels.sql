-- A client's own notes on its jobs, and finding jobs by state and images by failure without a look at others.
ALTER TABLE jobs ADD COLUMN labels TEXT; -- JSON, an object of strings; NULL: none

CREATE INDEX jobs_by_state ON jobs (state, seq);
CREATE INDEX images_by_error ON images (job, error_code, idx, state) WHERE error_code IS NOT NULL;
