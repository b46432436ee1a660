-- The farm as a whole: the order in which jobs changed, what waits and since when, what was spent, and the past of every
-- pool. A trigger writes what every change of a job has in common, so that no statement can forget it, and none of a
-- coordinator of the version before.

ALTER TABLE job_progress
    -- The transaction of the job's latest change. A reader that has seen all below the oldest running transaction can
    -- never miss one, in whatever order they commit.
    ADD COLUMN changed     XID8     NOT NULL DEFAULT '0',
    -- Model time that workers reported, microseconds.
    ADD COLUMN device_us   BIGINT   NOT NULL DEFAULT 0,
    -- Per stage, `encode` first (of which nothing is kept here): since when it has had ready images without a break,
    -- milliseconds since 1970; 0: it has none.
    ADD COLUMN ready_since BIGINT[] NOT NULL DEFAULT '{}';

CREATE INDEX job_progress_changed ON job_progress (changed, job);

CREATE FUNCTION note_job_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.changed := pg_current_xact_id();
    FOR stage IN 1 .. cardinality(NEW.ready) LOOP
        IF NEW.ready[stage] <= 0 THEN
            NEW.ready_since[stage] := 0;
        ELSIF coalesce(NEW.ready_since[stage], 0) = 0 THEN
            NEW.ready_since[stage] := (extract(epoch FROM clock_timestamp()) * 1000)::bigint;
        END IF;
    END LOOP;
    RETURN NEW;
END
$$;

CREATE TRIGGER job_added BEFORE INSERT ON job_progress FOR EACH ROW EXECUTE FUNCTION note_job_change();
CREATE TRIGGER job_changed BEFORE UPDATE ON job_progress FOR EACH ROW
    WHEN (NEW.version <> OLD.version) EXECUTE FUNCTION note_job_change();

-- What results came to, until the leader adds it up: a row per commit, pool and tenant. Rows are only added and removed:
-- a total that every commit changed would collect dead versions.
CREATE TABLE work_log (
    at        TIMESTAMPTZ      NOT NULL DEFAULT clock_timestamp(),
    done      BIGINT           NOT NULL,
    failed    BIGINT           NOT NULL,
    device_us BIGINT           NOT NULL,
    batches   DOUBLE PRECISION NOT NULL, -- each in parts, as its results came
    stage     TEXT COLLATE "C" NOT NULL,
    pool      BYTEA            NOT NULL, -- digest of the cascade, of the encoder for stage encode
    tenant    TEXT COLLATE "C"           -- NULL: texts, which tenants share
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);

-- A row per pool and minute. Counters may come late; sizes are noted by the leader, once, or are NULL.
CREATE TABLE history (
    minute     BIGINT           NOT NULL, -- its first second since 1970
    stage      TEXT COLLATE "C" NOT NULL,
    pool       BYTEA            NOT NULL,
    done       BIGINT           NOT NULL DEFAULT 0,
    failed     BIGINT           NOT NULL DEFAULT 0,
    batches    DOUBLE PRECISION NOT NULL DEFAULT 0,
    device_us  BIGINT           NOT NULL DEFAULT 0,
    ready      BIGINT,
    dispatched BIGINT,
    leased     BIGINT,
    workers    BIGINT,
    oldest_ms  BIGINT, -- NULL too if nothing was ready
    PRIMARY KEY (minute, stage, pool)
);

-- What a tenant's jobs took on a day (UTC).
CREATE TABLE usage_days (
    day       TEXT COLLATE "C" NOT NULL, -- 2026-01-31
    tenant    TEXT COLLATE "C" NOT NULL,
    done      BIGINT           NOT NULL,
    failed    BIGINT           NOT NULL,
    device_us BIGINT           NOT NULL,
    PRIMARY KEY (day, tenant)
);
