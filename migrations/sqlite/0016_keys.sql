-- Who may call: tenants, keys, and what was done with them.

CREATE TABLE tenants (
    name       TEXT    PRIMARY KEY,
    created_ms INTEGER NOT NULL,
    sharing    TEXT CHECK (sharing IN ('shared', 'sealed')) -- NULL: the farm's default
) WITHOUT ROWID;

INSERT INTO tenants (name, created_ms) SELECT tenant, min(created_ms) FROM jobs GROUP BY tenant;

CREATE TABLE keys (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    id          TEXT    NOT NULL UNIQUE,
    secret      TEXT,             -- SHA-256 of the secret; NULL: a certificate stands for the key
    certificate TEXT,             -- its subject
    tenant      TEXT REFERENCES tenants (name),
    scopes      TEXT    NOT NULL, -- names with a space before and after each
    label       TEXT    NOT NULL,
    created_ms  INTEGER NOT NULL,
    expires_ms  INTEGER,
    used_ms     INTEGER,          -- to the minute
    revoked_ms  INTEGER,
    CHECK ((secret IS NULL) <> (certificate IS NULL))
);

CREATE INDEX keys_by_tenant ON keys (tenant, seq);
-- One live key for a certificate.
CREATE UNIQUE INDEX keys_by_certificate ON keys (certificate) WHERE certificate IS NOT NULL AND revoked_ms IS NULL;

-- Rows are only added.
CREATE TABLE audit (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms  INTEGER NOT NULL,
    key    TEXT,          -- NULL: the farm itself, or a farm without keys
    tenant TEXT,          -- NULL: it concerned none
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    peer   TEXT           -- NULL: not from outside
);

CREATE INDEX audit_by_tenant ON audit (tenant, id);
CREATE INDEX audit_by_key ON audit (key, id);

CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit BEGIN
    SELECT RAISE(ABORT, 'rows of the audit are only added');
END;

CREATE TRIGGER audit_is_not_removed BEFORE DELETE ON audit BEGIN
    SELECT RAISE(ABORT, 'rows of the audit are only added');
END;
