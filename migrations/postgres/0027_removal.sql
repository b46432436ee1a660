-- Removal: of jobs, and of stored objects that no row needs any more. Times are milliseconds since
-- 1970.

ALTER TABLE jobs
    -- A deleted job looks as if it were gone. The cleaner then removes its rows in chunks, and this
    -- one last.
    ADD COLUMN deleted_ms          BIGINT, -- NULL: it was not deleted
    ADD COLUMN deleted_by          TEXT,
    -- Rows of images below this index are removed; -1: all rows but this one.
    ADD COLUMN cleared             BIGINT NOT NULL DEFAULT 0,
    -- When a retention policy removed the job's pictures, and which; NULL: none did, or a retry
    -- renders them again.
    ADD COLUMN pictures_removed_ms BIGINT,
    ADD COLUMN pictures_removed_by TEXT;

CREATE INDEX jobs_to_clear ON jobs (deleted_ms, seq) WHERE deleted_ms IS NOT NULL AND cleared >= 0;
CREATE INDEX jobs_cleared ON jobs (deleted_ms, seq) WHERE deleted_ms IS NOT NULL AND cleared < 0;
CREATE INDEX jobs_ended ON jobs (state, finished_at, seq) WHERE finished_at IS NOT NULL AND deleted_ms IS NULL;
-- In the order in which they ended, however that was.
CREATE INDEX jobs_by_end ON jobs (finished_at, seq) WHERE finished_at IS NOT NULL AND deleted_ms IS NULL;
CREATE INDEX jobs_ended_of_tenant ON jobs (tenant, state, finished_at, seq)
    WHERE finished_at IS NOT NULL AND deleted_ms IS NULL;

-- What is left of a deleted job for a while, so that the farm can say that it was deleted.
CREATE TABLE deleted_jobs (
    deleted_ms        BIGINT NOT NULL,
    id                UUID   PRIMARY KEY,
    tenant            TEXT   NOT NULL,
    client_request_id TEXT,
    deleted_by        TEXT   NOT NULL
);

-- What jobs that are deleted were to their tenants, by the day (UTC) on which they were submitted,
-- so that the sums of usage can still be compared with rows. Day '': of days that are
-- kept no longer, less what was used on such days.
CREATE TABLE deleted_usage (
    day       TEXT COLLATE "C" NOT NULL, -- 2026-01-31
    tenant    TEXT COLLATE "C" NOT NULL,
    images    BIGINT           NOT NULL,
    device_us BIGINT           NOT NULL,
    PRIMARY KEY (day, tenant)
);

CREATE INDEX deleted_jobs_by_time ON deleted_jobs (deleted_ms);
CREATE INDEX deleted_jobs_by_request ON deleted_jobs (tenant, client_request_id) WHERE client_request_id IS NOT NULL;

-- The object was removed, or is about to be, although the row stays; NULL: it is there. A row that
-- names an object and is not marked so keeps the object. Keys are long, so the index has their
-- hash.
ALTER TABLE outputs ADD COLUMN removed_ms BIGINT;
CREATE INDEX outputs_by_key ON outputs (hashtextextended(key, 0));

-- Objects on their way out of storage. `candidate`: a row that named it was removed; whether others
-- do is not looked up yet. `marked`: none did, and none can any more; it may be deleted in storage.
-- `deleted`: that was done, and is done once more after a while, because a slow worker may have
-- stored it late. `closed`: that was done too. While a row is here and no candidate, no result that
-- names its key is believed, and tasks get another prefix.
CREATE TABLE removals (
    mark   BIGINT           NOT NULL DEFAULT 0, -- farm.removals when it was marked
    at_ms  BIGINT           NOT NULL,           -- since when it is in this state
    due_ms BIGINT           NOT NULL,           -- when the cleaner looks at it
    tries  BIGINT           NOT NULL DEFAULT 0,
    state  TEXT COLLATE "C" NOT NULL CHECK (state IN ('candidate', 'marked', 'deleted', 'closed')),
    kind   TEXT COLLATE "C" NOT NULL,
    key    TEXT COLLATE "C" PRIMARY KEY, -- with '/' at its end: everything below it
    prefix TEXT COLLATE "C" NOT NULL,    -- the key up to its last '/'
    source TEXT COLLATE "C" NOT NULL,    -- by which those are found who need it
    error  TEXT
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);

CREATE INDEX removals_due ON removals (state, due_ms, key);
CREATE INDEX removals_by_prefix ON removals (prefix) WHERE state <> 'candidate';

-- Which of these keys are on their way out. From here to the end of the transaction no key is
-- marked: whoever marks takes this lock alone. The second statement sees what was committed before
-- the lock was got, because the function is volatile.
CREATE FUNCTION leaving_among(keys TEXT[]) RETURNS SETOF TEXT LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(2026112901);
    RETURN QUERY SELECT r.key FROM removals AS r WHERE r.key = ANY (keys) AND r.state <> 'candidate';
END
$$;

-- Raised before objects are deleted. Storage has the same number, so a record that is an older copy
-- is recognised.
ALTER TABLE farm ADD COLUMN removals BIGINT NOT NULL DEFAULT 0;

-- Texts that no job needs, since when.
CREATE TABLE unused_texts (
    embedding BIGINT PRIMARY KEY,
    since_ms  BIGINT NOT NULL
);

CREATE INDEX unused_texts_by_time ON unused_texts (since_ms);

INSERT INTO unused_texts (embedding, since_ms)
SELECT id, (extract(epoch FROM clock_timestamp()) * 1000)::bigint FROM embeddings AS e
WHERE NOT EXISTS (SELECT FROM job_texts AS t WHERE t.embedding = e.id);

-- What may be removed how long after a job has ended. No row: never. Tenant '': every tenant
-- without a row of its own.
CREATE TABLE retention (
    seconds     BIGINT,                     -- NULL: for ever, whatever the farm's policy is
    -- When the job ended that was looked at last, microseconds since 1970.
    reached     BIGINT NOT NULL DEFAULT 0,
    reached_seq BIGINT NOT NULL DEFAULT 0,  -- that job
    reached_idx BIGINT NOT NULL DEFAULT -1, -- its next image; -1: all were looked at
    tenant      TEXT COLLATE "C" NOT NULL,
    subject     TEXT COLLATE "C" NOT NULL,
    outcome     TEXT COLLATE "C" NOT NULL,  -- '': of no job
    PRIMARY KEY (tenant, subject, outcome)
);

-- An object that was removed takes no bytes of its tenant any more.
CREATE OR REPLACE FUNCTION log_replaced_outputs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Every upsert comes here too, mostly with no row.
    IF NOT EXISTS (SELECT FROM new_rows) THEN
        RETURN NULL;
    END IF;
    INSERT INTO usage_log (tenant, images, bytes)
    SELECT j.tenant, 0, sum(o.bytes)
    FROM (SELECT job, sum(bytes) AS bytes
          FROM (SELECT job, size AS bytes FROM new_rows WHERE removed_ms IS NULL
                UNION ALL SELECT job, -size FROM old_rows WHERE removed_ms IS NULL) AS both_rows
          GROUP BY job) AS o
    CROSS JOIN LATERAL (SELECT tenant FROM jobs WHERE seq = o.job OFFSET 0) AS j
    GROUP BY j.tenant HAVING sum(o.bytes) <> 0;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION log_removed_outputs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO usage_log (tenant, images, bytes)
    SELECT j.tenant, 0, -sum(o.bytes)
    FROM (SELECT job, sum(size) AS bytes FROM old_rows WHERE removed_ms IS NULL GROUP BY job) AS o
    CROSS JOIN LATERAL (SELECT tenant FROM jobs WHERE seq = o.job OFFSET 0) AS j
    GROUP BY j.tenant;
    RETURN NULL;
END
$$;
