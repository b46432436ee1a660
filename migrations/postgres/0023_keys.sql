-- Who may call: tenants, keys, and what was done with them. Times are milliseconds since 1970 by the server's clock.

CREATE TABLE tenants (
    name       TEXT COLLATE "C" PRIMARY KEY,
    created_ms BIGINT NOT NULL,
    sharing    TEXT CHECK (sharing IN ('shared', 'sealed')) -- NULL: the farm's default
);

INSERT INTO tenants (name, created_ms)
SELECT tenant, (extract(epoch FROM min(created_at)) * 1000)::bigint FROM jobs GROUP BY tenant;

CREATE TABLE keys (
    seq         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created_ms  BIGINT NOT NULL,
    expires_ms  BIGINT,
    used_ms     BIGINT,           -- to the minute
    revoked_ms  BIGINT,
    id          TEXT COLLATE "C" NOT NULL UNIQUE,
    secret      BYTEA CHECK (octet_length(secret) = 32), -- SHA-256; NULL: a certificate stands for the key
    certificate TEXT COLLATE "C", -- its subject
    tenant      TEXT COLLATE "C" REFERENCES tenants (name),
    scopes      TEXT NOT NULL,    -- names with a space before and after each
    label       TEXT NOT NULL,
    CHECK ((secret IS NULL) <> (certificate IS NULL))
);

CREATE INDEX keys_by_tenant ON keys (tenant, seq);
-- One live key for a certificate.
CREATE UNIQUE INDEX keys_by_certificate ON keys (certificate) WHERE certificate IS NOT NULL AND revoked_ms IS NULL;

-- Rows are only added.
CREATE TABLE audit (
    id     BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at_ms  BIGINT NOT NULL,
    key    TEXT COLLATE "C", -- NULL: the farm itself, or a farm without keys
    tenant TEXT COLLATE "C", -- NULL: it concerned none
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    peer   TEXT              -- NULL: not from outside
);

CREATE INDEX audit_by_tenant ON audit (tenant, id);
CREATE INDEX audit_by_key ON audit (key, id);

CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of the audit are only added';
END
$$;

CREATE TRIGGER audit_is_not_changed BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();
