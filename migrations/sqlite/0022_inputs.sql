-- Uploaded pictures: which jobs use them, and since when none does.

CREATE TABLE job_inputs (
    job INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
    key TEXT    NOT NULL, -- of the picture in storage
    PRIMARY KEY (job, key)
) WITHOUT ROWID;

CREATE INDEX job_inputs_by_key ON job_inputs (key, job);

INSERT INTO job_inputs (job, key)
SELECT DISTINCT p.job, named.value ->> '$.key'
FROM prompts AS p, json_each(p.extras) AS named
WHERE p.extras IS NOT NULL AND named.key IN ('image', 'mask');

-- A trigger, so that no statement that adds prompts can forget it.
CREATE TRIGGER prompts_use_inputs AFTER INSERT ON prompts WHEN NEW.extras IS NOT NULL BEGIN
    INSERT INTO job_inputs (job, key)
    SELECT NEW.job, named.value ->> '$.key' FROM json_each(NEW.extras) AS named WHERE named.key IN ('image', 'mask')
    ON CONFLICT (job, key) DO NOTHING;
END;

-- farm.removals when an earlier copy was removed: while that is remembered, the picture lies under
-- a key with this number. 0: none was.
ALTER TABLE tenant_inputs ADD COLUMN mark INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tenant_inputs ADD COLUMN key TEXT GENERATED ALWAYS AS
    ('inputs/' || CASE mark WHEN 0 THEN '' ELSE mark || '/' END || coalesce(canonical, sha256) || '.png') VIRTUAL;
-- When it was uploaded last, or when a job of its tenant that used it was removed; NULL: such a job
-- uses it.
ALTER TABLE tenant_inputs ADD COLUMN unused_ms INTEGER;

UPDATE tenant_inputs SET unused_ms = CAST(unixepoch('subsec') * 1000 AS INTEGER);

CREATE INDEX tenant_inputs_by_key ON tenant_inputs (key, tenant);
CREATE INDEX tenant_inputs_unused ON tenant_inputs (tenant, unused_ms) WHERE unused_ms IS NOT NULL;
