-- The farm's record: what was submitted, how far it has come, and where its artifacts lie.
--
-- Digests are hexadecimal text, ids UUID text, times milliseconds since 1970 by the database's clock, seeds the 64
-- bits of an unsigned number in a signed one. Rows refer to jobs by `seq`, which is small.

CREATE TABLE farm (
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    id         TEXT    NOT NULL,
    created_ms INTEGER NOT NULL
);

CREATE TABLE cascades (
    digest        TEXT    PRIMARY KEY,
    name          TEXT    NOT NULL,
    encoder       TEXT    NOT NULL,
    cascade       TEXT    NOT NULL, -- JSON
    registered_ms INTEGER NOT NULL
);

CREATE TABLE jobs (
    seq               INTEGER PRIMARY KEY AUTOINCREMENT,
    id                TEXT    NOT NULL UNIQUE,
    tenant            TEXT    NOT NULL,
    client_request_id TEXT,             -- NULL: the client asked for no idempotency
    content           TEXT    NOT NULL, -- digest of the request; final when the job is accepted
    name              TEXT    NOT NULL,
    priority          INTEGER NOT NULL,
    state             TEXT    NOT NULL
        CHECK (state IN ('receiving', 'active', 'paused', 'done', 'failed', 'cancelled')),
    follow            TEXT CHECK (follow IN ('cancel', 'retry')), -- what the image rows have yet to follow
    cascade           TEXT    NOT NULL REFERENCES cascades (digest),
    encoder           TEXT    NOT NULL,
    settings          TEXT    NOT NULL, -- JSON, every default filled in
    requested         TEXT    NOT NULL, -- JSON, as the client asked
    seed              INTEGER NOT NULL,
    version           INTEGER NOT NULL DEFAULT 1,
    generation        INTEGER NOT NULL DEFAULT 1,
    images            INTEGER NOT NULL DEFAULT 0,
    done              INTEGER NOT NULL DEFAULT 0,
    dead              INTEGER NOT NULL DEFAULT 0,
    cancelled         INTEGER NOT NULL DEFAULT 0,
    created_ms        INTEGER NOT NULL,
    touched_ms        INTEGER NOT NULL, -- last chunk of a streaming submit
    finished_ms       INTEGER,
    manifest          TEXT CHECK (manifest IN ('pending', 'written')),
    manifest_key      TEXT,
    manifest_sha256   TEXT
);

CREATE UNIQUE INDEX jobs_by_request ON jobs (tenant, client_request_id)
    WHERE client_request_id IS NOT NULL AND state <> 'receiving';
CREATE INDEX jobs_by_tenant ON jobs (tenant, seq);
CREATE INDEX jobs_receiving ON jobs (touched_ms) WHERE state = 'receiving';
CREATE INDEX jobs_following ON jobs (seq) WHERE follow IS NOT NULL;
CREATE INDEX jobs_live ON jobs (seq) WHERE state IN ('active', 'paused');
CREATE INDEX jobs_manifest_pending ON jobs (seq) WHERE manifest = 'pending';

-- Counters of a job per stage. Stage -1 is `encode`, counted in distinct texts; the others count images.
CREATE TABLE job_stages (
    job           INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
    stage         INTEGER NOT NULL,
    name          TEXT    NOT NULL,
    pool          TEXT    NOT NULL, -- digest of the cascade, of the encoder for stage -1
    compatibility TEXT    NOT NULL,
    total         INTEGER NOT NULL DEFAULT 0, -- stage -1 only; the others' is the job's images
    ready         INTEGER NOT NULL DEFAULT 0,
    dispatched    INTEGER NOT NULL DEFAULT 0,
    passed        INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (job, stage)
) WITHOUT ROWID;

CREATE INDEX job_stages_ready ON job_stages (pool, name, job) WHERE ready > 0;
CREATE INDEX job_stages_dispatched ON job_stages (pool, name, job) WHERE dispatched > 0;
CREATE INDEX job_stages_to_encode ON job_stages (pool, job) WHERE stage = -1 AND passed < total;

-- One row per distinct prepared text and encoder; the digest covers both.
CREATE TABLE embeddings (
    id         INTEGER PRIMARY KEY,
    digest     TEXT    NOT NULL UNIQUE,
    encoder    TEXT    NOT NULL,
    prepared   TEXT    NOT NULL,
    state      TEXT    NOT NULL DEFAULT 'wanted' CHECK (state IN ('wanted', 'dispatched', 'done', 'dead')),
    spread     INTEGER NOT NULL DEFAULT 1, -- 0: prompts have yet to learn of the state
    dispatch   INTEGER NOT NULL DEFAULT 0,
    failures   INTEGER NOT NULL DEFAULT 0,
    hosts      TEXT    NOT NULL DEFAULT '[]',
    suspect    INTEGER NOT NULL DEFAULT 0,
    error_code TEXT,
    error      TEXT,
    key        TEXT,
    sha256     TEXT,
    size       INTEGER,
    notes      TEXT    NOT NULL DEFAULT '[]'
);

CREATE INDEX embeddings_dispatched ON embeddings (encoder) WHERE state = 'dispatched';
CREATE INDEX embeddings_to_spread ON embeddings (id) WHERE spread = 0;

CREATE TABLE prompts (
    job                INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
    position           INTEGER NOT NULL,
    text               TEXT    NOT NULL,
    negative           TEXT    NOT NULL,
    first_index        INTEGER NOT NULL,
    images             INTEGER NOT NULL,
    first_seed         INTEGER NOT NULL,
    text_embedding     INTEGER NOT NULL REFERENCES embeddings (id),
    negative_embedding INTEGER REFERENCES embeddings (id), -- NULL: no stage is guided
    encoded            INTEGER NOT NULL,                   -- 0: not all, 1: all committed, 2: one is dead
    PRIMARY KEY (job, position)
) WITHOUT ROWID;

CREATE INDEX prompts_by_text ON prompts (text_embedding) WHERE encoded = 0;
CREATE INDEX prompts_by_negative ON prompts (negative_embedding) WHERE encoded = 0;

-- The distinct texts a job needs.
CREATE TABLE job_texts (
    job       INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
    embedding INTEGER NOT NULL REFERENCES embeddings (id),
    encoded   INTEGER NOT NULL, -- 0: not yet, 1: committed, 2: dead
    PRIMARY KEY (job, embedding)
) WITHOUT ROWID;

CREATE INDEX job_texts_by_embedding ON job_texts (embedding, job);
CREATE INDEX job_texts_to_encode ON job_texts (job, embedding) WHERE encoded = 0;

-- What the user should know of a job's texts; a hundred at most.
CREATE TABLE job_notes (
    job  INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
    note TEXT    NOT NULL,
    PRIMARY KEY (job, note)
) WITHOUT ROWID;

CREATE TABLE images (
    job        INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
    idx        INTEGER NOT NULL,
    prompt     INTEGER NOT NULL, -- position of its prompt
    state      TEXT    NOT NULL
        CHECK (state IN ('waiting', 'ready', 'dispatched', 'done', 'dead', 'cancelled')),
    stage      INTEGER NOT NULL DEFAULT 0,
    generation INTEGER NOT NULL DEFAULT 1,
    dispatch   INTEGER NOT NULL DEFAULT 0,
    failures   INTEGER NOT NULL DEFAULT 0,
    hosts      TEXT    NOT NULL DEFAULT '[]',
    suspect    INTEGER NOT NULL DEFAULT 0,
    error_code TEXT,
    error      TEXT,
    version    INTEGER NOT NULL,
    PRIMARY KEY (job, idx)
) WITHOUT ROWID;

CREATE INDEX images_by_state ON images (job, state, stage, idx);
CREATE INDEX images_by_version ON images (job, version, idx);

-- What each stage of an image stored; the last one's is the picture.
CREATE TABLE outputs (
    job          INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
    idx          INTEGER NOT NULL,
    stage        INTEGER NOT NULL,
    key          TEXT    NOT NULL,
    sha256       TEXT    NOT NULL,
    size         INTEGER NOT NULL,
    seconds      REAL    NOT NULL,
    worker       TEXT    NOT NULL,
    device_class TEXT    NOT NULL,
    PRIMARY KEY (job, idx, stage)
) WITHOUT ROWID;
