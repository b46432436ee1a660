-- Settings of single prompts that are not their job's. Prompts of a job that come to the same
-- settings share a row.
CREATE TABLE job_variants (
    job      BIGINT   NOT NULL,
    variant  INTEGER  NOT NULL, -- counted from 1
    stages   SMALLINT NOT NULL, -- how many its images pass
    settings TEXT     NOT NULL, -- JSON, every default filled in
    PRIMARY KEY (job, variant)
);

-- NULL: the job's own settings.
--
-- This and the next files change one table each. A coordinator that runs locks these tables in
-- orders of its own; a transaction that locked several would wait for it while it waits for them.
ALTER TABLE prompts ADD COLUMN variant INTEGER;
