-- Whoever watches the farm and was away learns of deleted jobs from what is left of them.

ALTER TABLE deleted_jobs
    ADD COLUMN seq     BIGINT NOT NULL DEFAULT 0,   -- the job's
    ADD COLUMN version BIGINT NOT NULL DEFAULT 0,   -- its last one
    ADD COLUMN changed XID8   NOT NULL DEFAULT '0'; -- mark of its last change, which deleted it

CREATE INDEX deleted_jobs_by_change ON deleted_jobs (changed, seq);
CREATE INDEX deleted_jobs_of_tenant_by_change ON deleted_jobs (tenant, changed, seq);

-- The latest of these marks that is forgotten. Whoever has not come further must read everything
-- again.
ALTER TABLE farm ADD COLUMN forgotten_changes XID8 NOT NULL DEFAULT '0';
