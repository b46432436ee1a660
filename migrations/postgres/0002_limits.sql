-- What a user allows a job: until when, how much of it at once, how many failures; why a job ended that its user did not
-- end; how fast it goes; and which workers failed at what others could do.

ALTER TABLE jobs
    ADD COLUMN deadline    TIMESTAMPTZ,
    ADD COLUMN max_workers INTEGER CHECK (max_workers > 0),
    ADD COLUMN max_failed  BIGINT CHECK (max_failed >= 0),
    ADD COLUMN end_code    TEXT CHECK (end_code IN ('deadline', 'failures')), -- NULL: its images, or its user
    ADD COLUMN end_reason  TEXT;

CREATE INDEX jobs_by_deadline ON jobs (deadline) WHERE deadline IS NOT NULL AND state IN ('active', 'paused');
CREATE INDEX jobs_with_max_failed ON jobs (seq) WHERE max_failed IS NOT NULL AND state IN ('active', 'paused');

-- How far a job had come a while ago, from which every coordinator reckons the same rate. A row a job, and a new version
-- of it twice a minute at most.
CREATE TABLE job_paces (
    job       BIGINT      PRIMARY KEY,
    before_at TIMESTAMPTZ NOT NULL,
    before    BIGINT[]    NOT NULL, -- job_progress.passed as it was then
    latest_at TIMESTAMPTZ NOT NULL,
    latest    BIGINT[]    NOT NULL
) WITH (fillfactor = 60);

-- Images that a worker failed at while it ran them alone, and who did them then; kept for a while.
CREATE TABLE worker_failures (
    job     BIGINT      NOT NULL,
    idx     BIGINT      NOT NULL,
    stage   SMALLINT    NOT NULL,
    worker  TEXT        NOT NULL,
    at      TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    done_by TEXT,                 -- another worker; NULL: nobody so far
    PRIMARY KEY (job, idx, stage, worker)
);

CREATE INDEX worker_failures_by_time ON worker_failures (at);

-- Workers that get nothing for a time. A row stays for a day after that, so that the next time is longer.
CREATE TABLE workers_aside (
    worker TEXT        PRIMARY KEY,
    since  TIMESTAMPTZ NOT NULL,
    until  TIMESTAMPTZ NOT NULL,
    times  INTEGER     NOT NULL,
    reason TEXT        NOT NULL
);
