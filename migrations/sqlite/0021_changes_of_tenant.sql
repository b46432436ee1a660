-- A tenant's watch of the farm reads its own changes, and passes over nobody else's.

CREATE INDEX jobs_of_tenant_by_change ON jobs (tenant, changed, seq);
