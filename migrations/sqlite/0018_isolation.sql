-- What keeps tenants apart.

-- Whether embeddings and outputs of one tenant are used for another. NULL: nobody has decided yet. Then the farm's only
-- tenant is the one that submitted first, and a second one seals the farm.
ALTER TABLE farm ADD COLUMN sharing TEXT CHECK (sharing IN ('shared', 'sealed'));
ALTER TABLE farm ADD COLUMN lone_tenant TEXT;
-- Behind the tokens of listings, which say nothing to those who get them.
ALTER TABLE farm ADD COLUMN token_secret BLOB;

UPDATE farm
SET lone_tenant = (SELECT min(tenant) FROM jobs),
    sharing = CASE WHEN (SELECT count(DISTINCT tenant) FROM jobs) > 1 THEN 'sealed' END;

-- How a job shares: it keeps what it was submitted with. Sealed: its tenant is part of the digests of its texts and tasks.
ALTER TABLE jobs ADD COLUMN sealed INTEGER NOT NULL DEFAULT 0;

-- Who has uploaded a picture. Of earlier ones the record does not say it: they are those tenants' whose prompts use them,
-- and the default tenant's.
CREATE TABLE tenant_inputs (
    sha256         TEXT    NOT NULL,
    tenant         TEXT    NOT NULL,
    size           INTEGER NOT NULL,
    width          INTEGER NOT NULL,
    height         INTEGER NOT NULL,
    is_mask        INTEGER NOT NULL, -- it can be a mask
    canonical      TEXT,    -- NULL: what was sent is stored as it came
    canonical_size INTEGER,
    orientation    INTEGER NOT NULL DEFAULT 1, -- how it was turned, as EXIF counts
    notes          TEXT,    -- JSON list; NULL: none
    stored_ms      INTEGER NOT NULL,
    PRIMARY KEY (sha256, tenant)
) WITHOUT ROWID;

INSERT INTO tenant_inputs
    (sha256, tenant, size, width, height, is_mask, canonical, canonical_size, orientation, notes, stored_ms)
SELECT i.sha256, u.tenant, i.size, i.width, i.height, i.is_mask, i.canonical, i.canonical_size, i.orientation, i.notes,
       i.stored_ms
FROM inputs AS i
JOIN (SELECT j.tenant, p.extras ->> '$.image.sha256' AS stored FROM prompts AS p JOIN jobs AS j ON j.seq = p.job
      WHERE p.extras IS NOT NULL
      UNION
      SELECT j.tenant, p.extras ->> '$.mask.sha256' FROM prompts AS p JOIN jobs AS j ON j.seq = p.job
      WHERE p.extras IS NOT NULL
      UNION
      SELECT 'default', coalesce(canonical, sha256) FROM inputs) AS u
  ON u.stored = coalesce(i.canonical, i.sha256);

DROP TABLE inputs;
