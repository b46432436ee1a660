-- What tenants may use, and what they use of it.

ALTER TABLE tenants -- NULL: no limit
    ADD COLUMN images_waiting         BIGINT           CHECK (images_waiting >= 0),
    ADD COLUMN images_per_day         BIGINT           CHECK (images_per_day >= 0),
    ADD COLUMN device_seconds_per_day DOUBLE PRECISION CHECK (device_seconds_per_day >= 0),
    ADD COLUMN stored_bytes           BIGINT           CHECK (stored_bytes >= 0),
    ADD COLUMN requests_per_second    DOUBLE PRECISION CHECK (requests_per_second > 0),
    ADD COLUMN burst                  BIGINT           CHECK (burst > 0),
    ADD COLUMN workers                BIGINT           CHECK (workers >= 0),
    ADD COLUMN weight                 DOUBLE PRECISION CHECK (weight > 0); -- NULL: the coordinator's

-- Images that a tenant submitted on a day (UTC), as far as the leader has added them up.
CREATE TABLE submitted_days (
    day    TEXT COLLATE "C" NOT NULL, -- 2026-01-31
    tenant TEXT COLLATE "C" NOT NULL,
    images BIGINT           NOT NULL,
    PRIMARY KEY (day, tenant)
);

INSERT INTO submitted_days (day, tenant, images)
SELECT to_char(j.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD'), j.tenant, sum(p.images)
FROM jobs AS j
CROSS JOIN LATERAL (SELECT images FROM job_progress AS newest WHERE newest.job = j.seq
                    ORDER BY newest.version DESC LIMIT 1) AS p
WHERE j.state <> 'receiving' GROUP BY 1, 2;

-- What a tenant has stored, as far as the leader has added it up: the outputs of all its jobs, and its uploads.
CREATE TABLE stored_bytes (
    tenant TEXT COLLATE "C" PRIMARY KEY,
    bytes  BIGINT NOT NULL
);

INSERT INTO stored_bytes (tenant, bytes)
SELECT tenant, sum(size)
FROM (SELECT j.tenant, o.size FROM outputs AS o JOIN jobs AS j ON j.seq = o.job
      UNION ALL
      SELECT tenant, size FROM tenant_inputs WHERE canonical IS NULL OR canonical = sha256) AS s
GROUP BY tenant;

-- What transactions have added to the two, until the leader adds it up. Rows are only added and removed: a sum that every
-- commit changed would make commits wait for each other, and would collect dead versions.
CREATE TABLE usage_log (
    at     TIMESTAMPTZ      NOT NULL DEFAULT clock_timestamp(),
    images BIGINT           NOT NULL,
    bytes  BIGINT           NOT NULL,
    tenant TEXT COLLATE "C" NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);

-- Triggers log what is stored, because several statements add, replace and remove these rows, and one that forgot it would
-- spoil the sum without a sign. They run once per statement. A job's row says whose its outputs are, so it is removed after
-- them.
CREATE FUNCTION log_new_outputs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO usage_log (tenant, images, bytes)
    SELECT j.tenant, 0, sum(o.bytes)
    FROM (SELECT job, sum(size) AS bytes FROM new_rows GROUP BY job) AS o
    CROSS JOIN LATERAL (SELECT tenant FROM jobs WHERE seq = o.job OFFSET 0) AS j
    GROUP BY j.tenant;
    RETURN NULL;
END
$$;

CREATE FUNCTION log_replaced_outputs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Every upsert comes here too, mostly with no row.
    IF NOT EXISTS (SELECT FROM new_rows) THEN
        RETURN NULL;
    END IF;
    INSERT INTO usage_log (tenant, images, bytes)
    SELECT j.tenant, 0, sum(o.bytes)
    FROM (SELECT job, sum(bytes) AS bytes
          FROM (SELECT job, size AS bytes FROM new_rows UNION ALL SELECT job, -size FROM old_rows) AS both_rows
          GROUP BY job) AS o
    CROSS JOIN LATERAL (SELECT tenant FROM jobs WHERE seq = o.job OFFSET 0) AS j
    GROUP BY j.tenant HAVING sum(o.bytes) <> 0;
    RETURN NULL;
END
$$;

CREATE FUNCTION log_removed_outputs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO usage_log (tenant, images, bytes)
    SELECT j.tenant, 0, -sum(o.bytes)
    FROM (SELECT job, sum(size) AS bytes FROM old_rows GROUP BY job) AS o
    CROSS JOIN LATERAL (SELECT tenant FROM jobs WHERE seq = o.job OFFSET 0) AS j
    GROUP BY j.tenant;
    RETURN NULL;
END
$$;

CREATE TRIGGER outputs_stored AFTER INSERT ON outputs REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION log_new_outputs();
CREATE TRIGGER outputs_replaced AFTER UPDATE ON outputs REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION log_replaced_outputs();
CREATE TRIGGER outputs_removed AFTER DELETE ON outputs REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION log_removed_outputs();

-- An upload whose canonical form is another picture stores nothing itself: that picture has a row of its own.
CREATE FUNCTION log_input() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    added   BIGINT := 0;
    removed BIGINT := 0;
BEGIN
    IF TG_OP <> 'DELETE' AND (NEW.canonical IS NULL OR NEW.canonical = NEW.sha256) THEN
        added := NEW.size;
    END IF;
    IF TG_OP <> 'INSERT' AND (OLD.canonical IS NULL OR OLD.canonical = OLD.sha256) THEN
        removed := OLD.size;
    END IF;
    IF added <> removed THEN
        INSERT INTO usage_log (tenant, images, bytes) VALUES (coalesce(NEW.tenant, OLD.tenant), 0, added - removed);
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER inputs_stored AFTER INSERT OR UPDATE OR DELETE ON tenant_inputs
    FOR EACH ROW EXECUTE FUNCTION log_input();

-- Images that a retry will make wait, and that have not followed it yet. Counted only if the tenant has a quota of them.
ALTER TABLE image_commands ADD COLUMN images BIGINT NOT NULL DEFAULT 0;

-- The coordinators that have lately said that they run. Each lets its share of a tenant's requests pass.
CREATE TABLE coordinators (
    holder TEXT COLLATE "C" PRIMARY KEY,
    seen   TIMESTAMPTZ      NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);
