-- Whoever watches the farm and was away learns of deleted jobs from what is left of them.

ALTER TABLE deleted_jobs ADD COLUMN seq INTEGER NOT NULL DEFAULT 0;     -- the job's
ALTER TABLE deleted_jobs ADD COLUMN version INTEGER NOT NULL DEFAULT 0; -- its last one
-- The number of its last change, which deleted it.
ALTER TABLE deleted_jobs ADD COLUMN changed INTEGER NOT NULL DEFAULT 0;

CREATE INDEX deleted_jobs_by_change ON deleted_jobs (changed, seq);
CREATE INDEX deleted_jobs_of_tenant_by_change ON deleted_jobs (tenant, changed, seq);

-- The latest of these numbers that is forgotten. Whoever has not come further must read everything
-- again.
ALTER TABLE farm ADD COLUMN forgotten_changes INTEGER NOT NULL DEFAULT 0;
