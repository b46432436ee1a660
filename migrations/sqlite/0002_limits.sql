-- What a user allows a job: until when, how much of it at once, how many failures; why a job ended that its user did not
-- end; how fast it goes; and which workers failed at what others could do.

ALTER TABLE jobs ADD COLUMN deadline_ms INTEGER;
ALTER TABLE jobs ADD COLUMN max_workers INTEGER CHECK (max_workers > 0);
ALTER TABLE jobs ADD COLUMN max_failed INTEGER CHECK (max_failed >= 0);
ALTER TABLE jobs ADD COLUMN end_code TEXT CHECK (end_code IN ('deadline', 'failures')); -- NULL: its images, or its user
ALTER TABLE jobs ADD COLUMN end_reason TEXT;

CREATE INDEX jobs_by_deadline ON jobs (deadline_ms) WHERE deadline_ms IS NOT NULL AND state IN ('active', 'paused');
CREATE INDEX jobs_with_max_failed ON jobs (seq) WHERE max_failed IS NOT NULL AND state IN ('active', 'paused');

-- How far a job had come a while ago, from which its rate is reckoned. Lists have an element per stage, `encode` first.
CREATE TABLE job_paces (
    job       INTEGER PRIMARY KEY REFERENCES jobs (seq) ON DELETE CASCADE,
    before_ms INTEGER NOT NULL,
    before    TEXT    NOT NULL, -- JSON
    latest_ms INTEGER NOT NULL,
    latest    TEXT    NOT NULL  -- JSON
);

-- Images that a worker failed at while it ran them alone, and who did them then; kept for a while.
CREATE TABLE worker_failures (
    job     INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
    idx     INTEGER NOT NULL,
    stage   INTEGER NOT NULL,
    worker  TEXT    NOT NULL,
    at_ms   INTEGER NOT NULL,
    done_by TEXT,             -- another worker; NULL: nobody so far
    PRIMARY KEY (job, idx, stage, worker)
) WITHOUT ROWID;

CREATE INDEX worker_failures_by_time ON worker_failures (at_ms);

-- Workers that get nothing for a time. A row stays for a day after that, so that the next time is longer.
CREATE TABLE workers_aside (
    worker   TEXT    PRIMARY KEY,
    since_ms INTEGER NOT NULL,
    until_ms INTEGER NOT NULL,
    times    INTEGER NOT NULL,
    reason   TEXT    NOT NULL
) WITHOUT ROWID;
