-- Files and batches of the HTTP API.

CREATE TABLE files (
    id         TEXT    PRIMARY KEY,
    tenant     TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    purpose    TEXT    NOT NULL CHECK (purpose IN ('batch', 'batch_output')),
    size       INTEGER NOT NULL,
    sha256     TEXT    NOT NULL,
    key        TEXT    NOT NULL, -- of its bytes in storage; no other file has it
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER           -- NULL: as the policy says
) WITHOUT ROWID;

CREATE INDEX files_by_time ON files (created_ms, id);
CREATE INDEX files_of_tenant ON files (tenant, created_ms, id);
CREATE INDEX files_kept ON files (tenant, created_ms) WHERE expires_ms IS NULL;
CREATE INDEX files_expiring ON files (expires_ms) WHERE expires_ms IS NOT NULL;

CREATE TABLE batches (
    id         TEXT    PRIMARY KEY,
    tenant     TEXT    NOT NULL,
    key        TEXT,             -- that began it; NULL: an open farm's
    endpoint   TEXT    NOT NULL,
    input      TEXT    NOT NULL, -- its file, which stays while it is open
    window_ms  INTEGER NOT NULL,
    metadata   TEXT    NOT NULL, -- JSON
    origin     TEXT    NOT NULL,
    keep_ms    INTEGER,          -- how long its results are kept; NULL: as the policy says
    state      TEXT    NOT NULL,
    since      TEXT    NOT NULL, -- JSON: when it came into each state
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL, -- when its time is over
    ended_ms   INTEGER,
    progress   TEXT    NOT NULL DEFAULT '',
    output     TEXT,
    errors     TEXT,
    holder     TEXT,             -- the runner that takes its next step
    lease_ms   INTEGER,          -- and until when nobody else does
    due_ms     INTEGER NOT NULL, -- when the next step is due
    CHECK ((ended_ms IS NOT NULL) = (state IN ('completed', 'failed', 'expired', 'cancelled'))),
    CHECK ((holder IS NULL) = (lease_ms IS NULL))
) WITHOUT ROWID;

CREATE INDEX batches_by_time ON batches (created_ms, id);
CREATE INDEX batches_of_tenant ON batches (tenant, created_ms, id);
CREATE INDEX batches_due ON batches (due_ms, id) WHERE ended_ms IS NULL;
CREATE INDEX batches_open ON batches (tenant) WHERE ended_ms IS NULL;
CREATE INDEX batches_reading ON batches (input) WHERE ended_ms IS NULL;
CREATE INDEX batches_ended ON batches (tenant, ended_ms) WHERE ended_ms IS NOT NULL;

-- A file takes bytes of its tenant, as an upload does. Its size never changes.
CREATE TRIGGER files_stored AFTER INSERT ON files BEGIN
    INSERT INTO stored_bytes (tenant, bytes) VALUES (NEW.tenant, NEW.size)
    ON CONFLICT (tenant) DO UPDATE SET bytes = bytes + excluded.bytes;
END;

CREATE TRIGGER files_removed AFTER DELETE ON files BEGIN
    UPDATE stored_bytes SET bytes = bytes - OLD.size WHERE tenant = OLD.tenant;
END;

INSERT INTO retention (tenant, subject, outcome, seconds) VALUES ('', 'files', '', 30 * 86400)
ON CONFLICT DO NOTHING;
