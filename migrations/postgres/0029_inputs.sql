-- Uploaded pictures: which jobs use them, and since when none does.

CREATE TABLE job_inputs (
    job BIGINT           NOT NULL,
    key TEXT COLLATE "C" NOT NULL, -- of the picture in storage
    PRIMARY KEY (job, key)
);

CREATE INDEX job_inputs_by_key ON job_inputs (key, job);

INSERT INTO job_inputs (job, key)
SELECT DISTINCT p.job, named.value ->> 'key'
FROM prompts AS p CROSS JOIN LATERAL json_each(p.extras::json) AS named
WHERE p.extras IS NOT NULL AND named.key IN ('image', 'mask');

-- A trigger, so that no statement that adds prompts can forget it, and none of a coordinator of the
-- version before. The keys are in order, so that two chunks of a job do not wait for each other.
CREATE FUNCTION add_job_inputs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO job_inputs (job, key)
    SELECT DISTINCT p.job, named.value ->> 'key'
    FROM new_rows AS p CROSS JOIN LATERAL json_each(p.extras::json) AS named
    WHERE p.extras IS NOT NULL AND named.key IN ('image', 'mask')
    ORDER BY 1, 2
    ON CONFLICT (job, key) DO NOTHING;
    RETURN NULL;
END
$$;

CREATE TRIGGER prompts_use_inputs AFTER INSERT ON prompts REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION add_job_inputs();

ALTER TABLE tenant_inputs
    -- farm.removals when an earlier copy was removed: while that is remembered, the picture lies
    -- under a key with this number. 0: none was.
    ADD COLUMN mark      BIGINT NOT NULL DEFAULT 0,
    -- When it was uploaded last, or when a job of its tenant that used it was removed, milliseconds
    -- since 1970; NULL: such a job uses it.
    ADD COLUMN unused_ms BIGINT DEFAULT (extract(epoch FROM clock_timestamp()) * 1000)::bigint;

ALTER TABLE tenant_inputs
    ADD COLUMN key TEXT COLLATE "C" GENERATED ALWAYS AS
        ('inputs/' || CASE mark WHEN 0 THEN '' ELSE mark::text || '/' END || encode(coalesce(canonical, sha256), 'hex')
         || '.png') STORED;

CREATE INDEX tenant_inputs_by_key ON tenant_inputs (key, tenant);
CREATE INDEX tenant_inputs_unused ON tenant_inputs (tenant, unused_ms) WHERE unused_ms IS NOT NULL;
