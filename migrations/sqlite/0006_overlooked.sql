-- Jobs that a sweep found whose images had all ended and which had not: zero are expected.
ALTER TABLE farm ADD COLUMN jobs_overlooked INTEGER NOT NULL DEFAULT 0;
