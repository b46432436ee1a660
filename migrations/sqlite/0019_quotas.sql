-- What tenants may use, and what they use of it.

-- NULL: no limit.
ALTER TABLE tenants ADD COLUMN images_waiting INTEGER CHECK (images_waiting >= 0);
ALTER TABLE tenants ADD COLUMN images_per_day INTEGER CHECK (images_per_day >= 0);
ALTER TABLE tenants ADD COLUMN device_seconds_per_day REAL CHECK (device_seconds_per_day >= 0);
ALTER TABLE tenants ADD COLUMN stored_bytes INTEGER CHECK (stored_bytes >= 0);
ALTER TABLE tenants ADD COLUMN requests_per_second REAL CHECK (requests_per_second > 0);
ALTER TABLE tenants ADD COLUMN burst INTEGER CHECK (burst > 0);
ALTER TABLE tenants ADD COLUMN workers INTEGER CHECK (workers >= 0);
ALTER TABLE tenants ADD COLUMN weight REAL CHECK (weight > 0); -- NULL: the coordinator's

-- Images that a tenant submitted on a day (UTC).
CREATE TABLE submitted_days (
    day    TEXT    NOT NULL, -- 2026-01-31
    tenant TEXT    NOT NULL,
    images INTEGER NOT NULL,
    PRIMARY KEY (day, tenant)
) WITHOUT ROWID;

INSERT INTO submitted_days (day, tenant, images)
SELECT date(created_ms / 1000, 'unixepoch'), tenant, sum(images) FROM jobs WHERE state <> 'receiving' GROUP BY 1, 2;

-- What a tenant has stored: the outputs of all its jobs, and its uploads. Triggers keep the sum, because several statements
-- add, replace and remove these rows, and one that forgot it would spoil the sum without a sign.
CREATE TABLE stored_bytes (
    tenant TEXT    PRIMARY KEY,
    bytes  INTEGER NOT NULL
) WITHOUT ROWID;

INSERT INTO stored_bytes (tenant, bytes)
SELECT tenant, sum(size)
FROM (SELECT j.tenant, o.size FROM outputs AS o JOIN jobs AS j ON j.seq = o.job
      UNION ALL
      SELECT tenant, size FROM tenant_inputs WHERE canonical IS NULL OR canonical = sha256)
GROUP BY tenant;

CREATE TRIGGER outputs_stored AFTER INSERT ON outputs BEGIN
    INSERT INTO stored_bytes (tenant, bytes) SELECT tenant, NEW.size FROM jobs WHERE seq = NEW.job
    ON CONFLICT (tenant) DO UPDATE SET bytes = bytes + excluded.bytes;
END;

CREATE TRIGGER outputs_replaced AFTER UPDATE OF size ON outputs WHEN NEW.size <> OLD.size BEGIN
    UPDATE stored_bytes SET bytes = bytes + NEW.size - OLD.size
    WHERE tenant = (SELECT tenant FROM jobs WHERE seq = NEW.job);
END;

-- Outputs are removed before their job's row, which says whose they are.
CREATE TRIGGER outputs_removed AFTER DELETE ON outputs BEGIN
    UPDATE stored_bytes SET bytes = bytes - OLD.size WHERE tenant = (SELECT tenant FROM jobs WHERE seq = OLD.job);
END;

-- An upload whose canonical form is another picture stores nothing itself: that picture has a row of its own.
CREATE TRIGGER inputs_stored AFTER INSERT ON tenant_inputs WHEN NEW.canonical IS NULL OR NEW.canonical = NEW.sha256 BEGIN
    INSERT INTO stored_bytes (tenant, bytes) VALUES (NEW.tenant, NEW.size)
    ON CONFLICT (tenant) DO UPDATE SET bytes = bytes + excluded.bytes;
END;

CREATE TRIGGER inputs_replaced AFTER UPDATE ON tenant_inputs BEGIN
    UPDATE stored_bytes
    SET bytes = bytes + CASE WHEN NEW.canonical IS NULL OR NEW.canonical = NEW.sha256 THEN NEW.size ELSE 0 END
                      - CASE WHEN OLD.canonical IS NULL OR OLD.canonical = OLD.sha256 THEN OLD.size ELSE 0 END
    WHERE tenant = NEW.tenant;
END;

CREATE TRIGGER inputs_removed AFTER DELETE ON tenant_inputs WHEN OLD.canonical IS NULL OR OLD.canonical = OLD.sha256 BEGIN
    UPDATE stored_bytes SET bytes = bytes - OLD.size WHERE tenant = OLD.tenant;
END;

-- Images that a retry will make wait, and that have not followed it yet. Counted only if the tenant has a quota of them.
ALTER TABLE image_commands ADD COLUMN images INTEGER NOT NULL DEFAULT 0;
