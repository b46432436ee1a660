-- What the coordinators of a farm must agree on: how long a lease lasts. NULL until the first of them has said it.
ALTER TABLE farm ADD COLUMN lease_ms INTEGER CHECK (lease_ms > 0);

-- Workers that are asked to drain: the queue, which tells them, may forget it. Kept for an hour.
CREATE TABLE worker_drains (
    worker TEXT    PRIMARY KEY,
    at_ms  INTEGER NOT NULL
) WITHOUT ROWID;

-- Manifests are written in turns of the tenants.
DROP INDEX jobs_manifest_pending;
CREATE INDEX jobs_manifest_pending ON jobs (tenant, seq) WHERE manifest = 'pending';
