-- What the coordinators of a farm must agree on: how long a lease lasts. NULL until the first of them has said it.
ALTER TABLE farm ADD COLUMN lease_ms BIGINT CHECK (lease_ms > 0);

-- Workers that are asked to drain: the queue, which tells them, may forget it. Kept for an hour.
CREATE TABLE worker_drains (
    worker TEXT        PRIMARY KEY,
    at     TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp()
);

-- Manifests are written in turns of the tenants.
DROP INDEX jobs_manifest_pending;
CREATE INDEX jobs_manifest_pending ON jobs (tenant, seq) WHERE manifest = 'pending';

-- Runs of changes are kept while an image still has their version. Of a job that ended, those that are stale go: how far
-- that has come, by version; NULL: it is done.
ALTER TABLE jobs ADD COLUMN prune_from BIGINT DEFAULT 0;

CREATE INDEX jobs_to_prune ON jobs (seq) WHERE manifest = 'written' AND prune_from IS NOT NULL;

-- That a text is dispatched its row here says alone, so that its own row, which is wide, is written once.
ALTER TABLE dispatched_texts ADD COLUMN dispatch BIGINT NOT NULL DEFAULT 0;
ALTER TABLE dispatched_texts ALTER COLUMN dispatch DROP DEFAULT;
DELETE FROM dispatched_texts;
UPDATE embeddings SET state = 'wanted' WHERE state = 'dispatched';
UPDATE job_progress SET low[1] = 0;
ALTER TABLE embeddings DROP CONSTRAINT embeddings_state_check,
    ADD CONSTRAINT embeddings_state_check CHECK (state IN ('wanted', 'done', 'dead'));
