-- Files and batches of the HTTP API.

CREATE TABLE files (
    id         UUID             PRIMARY KEY,
    tenant     TEXT COLLATE "C" NOT NULL,
    name       TEXT             NOT NULL,
    purpose    TEXT COLLATE "C" NOT NULL CHECK (purpose IN ('batch', 'batch_output')),
    size       BIGINT           NOT NULL,
    sha256     BYTEA            NOT NULL,
    key        TEXT COLLATE "C" NOT NULL, -- of its bytes in storage; no other file has it
    created_ms BIGINT           NOT NULL,
    expires_ms BIGINT                     -- NULL: as the policy says
);

CREATE INDEX files_by_time ON files (created_ms, id);
CREATE INDEX files_of_tenant ON files (tenant, created_ms, id);
CREATE INDEX files_kept ON files (tenant, created_ms) WHERE expires_ms IS NULL;
CREATE INDEX files_expiring ON files (expires_ms) WHERE expires_ms IS NOT NULL;

-- Open batches change with each step, and are few.
CREATE TABLE batches (
    id         UUID             PRIMARY KEY,
    tenant     TEXT COLLATE "C" NOT NULL,
    key        TEXT,                      -- that began it; NULL: an open farm's
    endpoint   TEXT             NOT NULL,
    input      UUID             NOT NULL, -- its file, which stays while it is open
    window_ms  BIGINT           NOT NULL,
    metadata   TEXT             NOT NULL, -- JSON
    origin     TEXT             NOT NULL,
    keep_ms    BIGINT,                    -- how long its results are kept; NULL: as the policy says
    state      TEXT COLLATE "C" NOT NULL,
    since      TEXT             NOT NULL, -- JSON: when it came into each state
    created_ms BIGINT           NOT NULL,
    expires_ms BIGINT           NOT NULL, -- when its time is over
    ended_ms   BIGINT,
    progress   TEXT             NOT NULL DEFAULT '',
    output     UUID,
    errors     UUID,
    holder     UUID,                      -- the runner that takes its next step
    lease_ms   BIGINT,                    -- and until when nobody else does
    due_ms     BIGINT           NOT NULL, -- when the next step is due
    CHECK ((ended_ms IS NOT NULL) = (state IN ('completed', 'failed', 'expired', 'cancelled'))),
    CHECK ((holder IS NULL) = (lease_ms IS NULL))
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);

CREATE INDEX batches_by_time ON batches (created_ms, id);
CREATE INDEX batches_of_tenant ON batches (tenant, created_ms, id);
CREATE INDEX batches_due ON batches (due_ms, id) WHERE ended_ms IS NULL;
CREATE INDEX batches_open ON batches (tenant) WHERE ended_ms IS NULL;
CREATE INDEX batches_reading ON batches (input) WHERE ended_ms IS NULL;
CREATE INDEX batches_ended ON batches (tenant, ended_ms) WHERE ended_ms IS NOT NULL;

-- A file takes bytes of its tenant, as an upload does. Its size never changes.
CREATE FUNCTION log_file() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO usage_log (tenant, images, bytes) VALUES (NEW.tenant, 0, NEW.size);
    ELSE
        INSERT INTO usage_log (tenant, images, bytes) VALUES (OLD.tenant, 0, -OLD.size);
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER files_stored AFTER INSERT OR DELETE ON files FOR EACH ROW EXECUTE FUNCTION log_file();

INSERT INTO retention (tenant, subject, outcome, seconds) VALUES ('', 'files', '', 30 * 86400)
ON CONFLICT DO NOTHING;
