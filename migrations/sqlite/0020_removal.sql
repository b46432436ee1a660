-- Removal: of jobs, and of stored objects that no row needs any more.

-- A deleted job looks as if it were gone. The cleaner then removes its rows in chunks, and this one
-- last.
ALTER TABLE jobs ADD COLUMN deleted_ms INTEGER; -- NULL: it was not deleted
ALTER TABLE jobs ADD COLUMN deleted_by TEXT;
-- Rows of images below this index are removed; -1: all rows but this one.
ALTER TABLE jobs ADD COLUMN cleared INTEGER NOT NULL DEFAULT 0;
-- When a retention policy removed the job's pictures, and which; NULL: none did, or a retry renders
-- them again.
ALTER TABLE jobs ADD COLUMN pictures_removed_ms INTEGER;
ALTER TABLE jobs ADD COLUMN pictures_removed_by TEXT;

CREATE INDEX jobs_to_clear ON jobs (deleted_ms, seq) WHERE deleted_ms IS NOT NULL AND cleared >= 0;
CREATE INDEX jobs_cleared ON jobs (deleted_ms, seq) WHERE deleted_ms IS NOT NULL AND cleared < 0;
CREATE INDEX jobs_ended ON jobs (state, finished_ms, seq) WHERE finished_ms IS NOT NULL AND deleted_ms IS NULL;
-- In the order in which they ended, however that was.
CREATE INDEX jobs_by_end ON jobs (finished_ms, seq) WHERE finished_ms IS NOT NULL AND deleted_ms IS NULL;
CREATE INDEX jobs_ended_of_tenant ON jobs (tenant, state, finished_ms, seq)
    WHERE finished_ms IS NOT NULL AND deleted_ms IS NULL;

-- What is left of a deleted job for a while, so that the farm can say that it was deleted.
CREATE TABLE deleted_jobs (
    id                TEXT    PRIMARY KEY,
    tenant            TEXT    NOT NULL,
    client_request_id TEXT,
    deleted_ms        INTEGER NOT NULL,
    deleted_by        TEXT    NOT NULL) WITHOUT ROWID;

-- What jobs that are deleted were to their tenants, by the day (UTC) on which they were submitted,
-- so that the sums of usage can still be compared with rows. Day '': of days that are
-- kept no longer, less what was used on such days.
CREATE TABLE deleted_usage (
    day       TEXT    NOT NULL, -- 2026-01-31
    tenant    TEXT    NOT NULL,
    images    INTEGER NOT NULL,
    device_us INTEGER NOT NULL,
    PRIMARY KEY (day, tenant)
) WITHOUT ROWID;

CREATE INDEX deleted_jobs_by_time ON deleted_jobs (deleted_ms);
CREATE INDEX deleted_jobs_by_request ON deleted_jobs (tenant, client_request_id) WHERE client_request_id IS NOT NULL;

-- The object was removed, or is about to be, although the row stays; NULL: it is there. A row that
-- names an object and is not marked so keeps the object.
ALTER TABLE outputs ADD COLUMN removed_ms INTEGER;
CREATE INDEX outputs_by_key ON outputs (key);

-- Objects on their way out of storage. `candidate`: a row that named it was removed; whether others
-- do is not looked up yet. `marked`: none did, and none can any more; it may be deleted in storage.
-- `deleted`: that was done, and is done once more after a while, because a slow worker may have
-- stored it late. `closed`: that was done too. While a row is here and no candidate, no result that
-- names its key is believed, and tasks get another prefix.
CREATE TABLE removals (
    key    TEXT    PRIMARY KEY, -- with '/' at its end: everything below it
    prefix TEXT    NOT NULL,    -- the key up to its last '/'
    kind   TEXT    NOT NULL,
    source TEXT    NOT NULL,    -- by which those are found who need it
    state  TEXT    NOT NULL CHECK (state IN ('candidate', 'marked', 'deleted', 'closed')),
    mark   INTEGER NOT NULL DEFAULT 0, -- farm.removals when it was marked
    at_ms  INTEGER NOT NULL,           -- since when it is in this state
    due_ms INTEGER NOT NULL,           -- when the cleaner looks at it
    tries  INTEGER NOT NULL DEFAULT 0,
    error  TEXT
) WITHOUT ROWID;

CREATE INDEX removals_due ON removals (state, due_ms, key);
CREATE INDEX removals_by_prefix ON removals (prefix) WHERE state <> 'candidate';

-- Raised before objects are deleted. Storage has the same number, so a record that is an older copy
-- is recognised.
ALTER TABLE farm ADD COLUMN removals INTEGER NOT NULL DEFAULT 0;

-- Texts that no job needs, since when.
CREATE TABLE unused_texts (
    embedding INTEGER PRIMARY KEY,
    since_ms  INTEGER NOT NULL
);

CREATE INDEX unused_texts_by_time ON unused_texts (since_ms);

INSERT INTO unused_texts (embedding, since_ms)
SELECT id, CAST(unixepoch('subsec') * 1000 AS INTEGER) FROM embeddings
WHERE NOT EXISTS (SELECT 1 FROM job_texts AS t WHERE t.embedding = embeddings.id);

-- SQLite looks for prompts that name a text whose row is removed, whether that is encoded or not.
DROP INDEX prompts_by_text;
DROP INDEX prompts_by_negative;
DROP INDEX prompts_by_style;
CREATE INDEX prompts_by_text ON prompts (text_embedding, encoded);
CREATE INDEX prompts_by_negative ON prompts (negative_embedding, encoded) WHERE negative_embedding IS NOT NULL;
CREATE INDEX prompts_by_style ON prompts (style_embedding, encoded) WHERE style_embedding IS NOT NULL;

-- What may be removed how long after a job has ended. No row: never. Tenant '': every tenant
-- without a row of its own.
CREATE TABLE retention (
    tenant      TEXT    NOT NULL,
    subject     TEXT    NOT NULL,
    outcome     TEXT    NOT NULL,             -- '': of no job
    seconds     INTEGER,                      -- NULL: for ever, whatever the farm's policy is
    reached     INTEGER NOT NULL DEFAULT 0,   -- when the job ended that was looked at last
    reached_seq INTEGER NOT NULL DEFAULT 0,   -- that job
    reached_idx INTEGER NOT NULL DEFAULT -1,  -- its next image; -1: all were looked at
    PRIMARY KEY (tenant, subject, outcome)
) WITHOUT ROWID;

-- An object that was removed takes no bytes of its tenant any more.
DROP TRIGGER outputs_replaced;
CREATE TRIGGER outputs_replaced AFTER UPDATE OF size, removed_ms ON outputs
WHEN NEW.size <> OLD.size OR (NEW.removed_ms IS NULL) <> (OLD.removed_ms IS NULL) BEGIN
    UPDATE stored_bytes
    SET bytes = bytes + CASE WHEN NEW.removed_ms IS NULL THEN NEW.size ELSE 0 END
                      - CASE WHEN OLD.removed_ms IS NULL THEN OLD.size ELSE 0 END
    WHERE tenant = (SELECT tenant FROM jobs WHERE seq = NEW.job);
END;

DROP TRIGGER outputs_removed;
CREATE TRIGGER outputs_removed AFTER DELETE ON outputs WHEN OLD.removed_ms IS NULL BEGIN
    UPDATE stored_bytes SET bytes = bytes - OLD.size WHERE tenant = (SELECT tenant FROM jobs WHERE seq = OLD.job);
END;
