-- What keeps tenants apart.

ALTER TABLE farm
    -- Whether embeddings and outputs of one tenant are used for another. NULL: nobody has decided yet. Then the farm's
    -- only tenant is the one that submitted first, and a second one seals the farm.
    ADD COLUMN sharing      TEXT CHECK (sharing IN ('shared', 'sealed')),
    ADD COLUMN lone_tenant  TEXT,
    -- Behind the tokens of listings, which say nothing to those who get them.
    ADD COLUMN token_secret BYTEA CHECK (octet_length(token_secret) = 32);

UPDATE farm
SET lone_tenant = (SELECT min(tenant) FROM jobs),
    sharing = CASE WHEN (SELECT count(DISTINCT tenant) FROM jobs) > 1 THEN 'sealed' END;

-- How a job shares: it keeps what it was submitted with. Sealed: its tenant is part of the digests of its texts and tasks.
ALTER TABLE jobs ADD COLUMN sealed BOOLEAN NOT NULL DEFAULT FALSE;

-- Who has uploaded a picture. Of earlier ones the record does not say it: they are those tenants' whose prompts use them,
-- and the default tenant's. The table `inputs` stays for coordinators of the version before, while they still run.
CREATE TABLE tenant_inputs (
    sha256         BYTEA       NOT NULL CHECK (octet_length(sha256) = 32),
    tenant         TEXT        NOT NULL,
    stored_at      TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    size           BIGINT      NOT NULL,
    width          INTEGER     NOT NULL,
    height         INTEGER     NOT NULL,
    is_mask        BOOLEAN     NOT NULL,           -- it can be a mask
    canonical      BYTEA       CHECK (octet_length(canonical) = 32), -- NULL: what was sent is stored as it came
    canonical_size BIGINT,
    orientation    SMALLINT    NOT NULL DEFAULT 1, -- how it was turned, as EXIF counts
    notes          TEXT,                           -- JSON list; NULL: none
    PRIMARY KEY (sha256, tenant)
);

INSERT INTO tenant_inputs
    (sha256, tenant, stored_at, size, width, height, is_mask, canonical, canonical_size, orientation, notes)
SELECT i.sha256, u.tenant, i.stored_at, i.size, i.width, i.height, i.is_mask, i.canonical, i.canonical_size, i.orientation,
       i.notes
FROM inputs AS i
JOIN (SELECT j.tenant, decode(p.extras::json #>> '{image,sha256}', 'hex') AS stored
      FROM prompts AS p JOIN jobs AS j ON j.seq = p.job WHERE p.extras IS NOT NULL
      UNION
      SELECT j.tenant, decode(p.extras::json #>> '{mask,sha256}', 'hex')
      FROM prompts AS p JOIN jobs AS j ON j.seq = p.job WHERE p.extras IS NOT NULL
      UNION
      SELECT 'default', coalesce(canonical, sha256) FROM inputs) AS u
  ON u.stored = coalesce(i.canonical, i.sha256);
