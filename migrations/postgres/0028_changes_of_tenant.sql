-- A tenant's watch of the farm reads its own changes, and passes over nobody else's.

ALTER TABLE job_progress ADD COLUMN tenant TEXT; -- the job's

UPDATE job_progress AS p SET tenant = j.tenant FROM jobs AS j WHERE j.seq = p.job;

CREATE INDEX job_progress_of_tenant ON job_progress (tenant, changed, job);

-- A coordinator of the version before does not write the tenant.
CREATE FUNCTION add_tenant_of_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.tenant := (SELECT tenant FROM jobs WHERE seq = NEW.job);
    RETURN NEW;
END
$$;

CREATE TRIGGER job_has_tenant BEFORE INSERT ON job_progress FOR EACH ROW
    WHEN (NEW.tenant IS NULL) EXECUTE FUNCTION add_tenant_of_job();
