-- Settings of single prompts that are not their job's. Prompts of a job that come to the same
-- settings share a row.
CREATE TABLE job_variants (
    job      INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
    variant  INTEGER NOT NULL, -- counted from 1
    stages   INTEGER NOT NULL, -- how many its images pass
    settings TEXT    NOT NULL, -- JSON, every default filled in
    PRIMARY KEY (job, variant)
) WITHOUT ROWID;

-- NULL: the job's own settings. Images repeat what their prompt says, so that a commit needs no
-- look at prompts.
ALTER TABLE prompts ADD COLUMN variant INTEGER;
ALTER TABLE images ADD COLUMN variant INTEGER;

-- What the images with settings of their own come to, stage by stage; JSON, NULL: there are none.
ALTER TABLE jobs ADD COLUMN mix TEXT;

-- 0: only images with settings of their own pass the stage.
ALTER TABLE job_stages ADD COLUMN own INTEGER NOT NULL DEFAULT 1;
