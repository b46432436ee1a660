-- The farm as a whole: the order in which jobs changed, what waits and since when, what was spent, and the past of every
-- pool. Triggers write what every change of a job has in common, so that no statement can forget it.

-- Number of the latest change of any job.
ALTER TABLE farm ADD COLUMN changes INTEGER NOT NULL DEFAULT 0;

ALTER TABLE jobs ADD COLUMN changed   INTEGER NOT NULL DEFAULT 0; -- number of the job's latest change
ALTER TABLE jobs ADD COLUMN device_us INTEGER NOT NULL DEFAULT 0; -- model time that workers reported, microseconds

CREATE INDEX jobs_by_change ON jobs (changed, seq);

CREATE TRIGGER jobs_changed AFTER UPDATE OF version ON jobs WHEN NEW.version <> OLD.version
BEGIN
    UPDATE farm SET changes = changes + 1;
    UPDATE jobs SET changed = (SELECT changes FROM farm) WHERE seq = NEW.seq;
END;

-- Since when the stage has had ready images without a break, milliseconds since 1970; NULL: it has none.
ALTER TABLE job_stages ADD COLUMN ready_since_ms INTEGER;

UPDATE job_stages SET ready_since_ms = CAST(unixepoch('subsec') * 1000 AS INTEGER) WHERE ready > 0;

CREATE TRIGGER job_stages_ready_since AFTER UPDATE OF ready ON job_stages
WHEN (NEW.ready > 0) <> (NEW.ready_since_ms IS NOT NULL)
BEGIN
    UPDATE job_stages
    SET ready_since_ms = CASE WHEN NEW.ready > 0 THEN CAST(unixepoch('subsec') * 1000 AS INTEGER) END
    WHERE job = NEW.job AND stage = NEW.stage;
END;

-- What results came to, until the leader adds it up: a row per commit, pool and tenant.
CREATE TABLE work_log (
    at_ms     INTEGER NOT NULL,
    stage     TEXT    NOT NULL,
    pool      TEXT    NOT NULL, -- digest of the cascade, of the encoder for stage encode
    tenant    TEXT,             -- NULL: texts, which tenants share
    done      INTEGER NOT NULL,
    failed    INTEGER NOT NULL,
    batches   REAL    NOT NULL, -- each in parts, as its results came
    device_us INTEGER NOT NULL
);

-- A row per pool and minute. Counters may come late; sizes are noted by the leader, once, or are NULL.
CREATE TABLE history (
    minute     INTEGER NOT NULL, -- its first second since 1970
    stage      TEXT    NOT NULL,
    pool       TEXT    NOT NULL,
    done       INTEGER NOT NULL DEFAULT 0,
    failed     INTEGER NOT NULL DEFAULT 0,
    batches    REAL    NOT NULL DEFAULT 0,
    device_us  INTEGER NOT NULL DEFAULT 0,
    ready      INTEGER,
    dispatched INTEGER,
    leased     INTEGER,
    workers    INTEGER,
    oldest_ms  INTEGER, -- NULL too if nothing was ready
    PRIMARY KEY (minute, stage, pool)
) WITHOUT ROWID;

-- What a tenant's jobs took on a day (UTC).
CREATE TABLE usage_days (
    day       TEXT    NOT NULL, -- 2026-01-31
    tenant    TEXT    NOT NULL,
    done      INTEGER NOT NULL,
    failed    INTEGER NOT NULL,
    device_us INTEGER NOT NULL,
    PRIMARY KEY (day, tenant)
) WITHOUT ROWID;
