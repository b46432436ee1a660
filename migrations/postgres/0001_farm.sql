-- The farm's record: what was submitted, how far it has come, and where its artifacts lie.
--
-- Digests are 32 bytes, times the database's, seeds the 64 bits of an unsigned number in a signed one. Rows refer to
-- jobs by `seq`, which is small. Bulk tables have no foreign keys: a check per row would cost more than the row, and
-- one method deletes a job with all that is its.
--
-- Two thoughts shape it. Updates of the bulk tables touch no indexed column, so that they are heap-only (HOT). And
-- while somebody holds an old snapshot no dead version can be removed, so nothing may walk through the dead versions
-- of a row or of a queue: what changes often is found by its newest version, or from a low-water mark on.

CREATE TABLE farm (
    one        BOOLEAN     PRIMARY KEY DEFAULT TRUE CHECK (one),
    id         UUID        NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp()
);

-- Who leads dispatch and reaping, and until when by this database's clock.
CREATE TABLE leadership (
    one    BOOLEAN     PRIMARY KEY DEFAULT TRUE CHECK (one),
    holder TEXT        NOT NULL,
    term   BIGINT      NOT NULL,
    until  TIMESTAMPTZ NOT NULL
);

INSERT INTO leadership (holder, term, until) VALUES ('', 0, '-infinity');

CREATE TABLE cascades (
    digest        BYTEA       PRIMARY KEY CHECK (octet_length(digest) = 32),
    name          TEXT        NOT NULL,
    encoder       BYTEA       NOT NULL CHECK (octet_length(encoder) = 32),
    cascade       JSONB       NOT NULL,
    registered_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp()
);

-- What changes seldom of a job; the rest is in job_progress.
CREATE TABLE jobs (
    seq                  BIGINT      PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    id                   UUID        NOT NULL UNIQUE,
    tenant               TEXT        NOT NULL,
    client_request_id    TEXT,                 -- NULL: the client asked for no idempotency
    content              BYTEA       NOT NULL, -- digest of the request; final when the job is accepted
    name                 TEXT        NOT NULL,
    priority             SMALLINT    NOT NULL,
    state                TEXT        NOT NULL
        CHECK (state IN ('receiving', 'active', 'paused', 'done', 'failed', 'cancelled')),
    follow               TEXT CHECK (follow IN ('cancel', 'retry')), -- what the image rows have yet to follow
    cascade              BYTEA       NOT NULL REFERENCES cascades (digest),
    encoder              BYTEA       NOT NULL,
    settings             TEXT        NOT NULL, -- JSON, every default filled in
    requested            TEXT        NOT NULL, -- JSON, as the client asked
    seed                 BIGINT      NOT NULL,
    generation           INTEGER     NOT NULL DEFAULT 1,
    created_at           TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    finished_at          TIMESTAMPTZ,
    manifest             TEXT CHECK (manifest IN ('pending', 'written')),
    manifest_key         TEXT,
    manifest_sha256      BYTEA,
    manifest_writer      UUID,        -- which process writes it
    manifest_claim_until TIMESTAMPTZ
);

CREATE UNIQUE INDEX jobs_by_request ON jobs (tenant, client_request_id)
    WHERE client_request_id IS NOT NULL AND state <> 'receiving';
CREATE INDEX jobs_by_tenant ON jobs (tenant, seq);
CREATE INDEX jobs_receiving ON jobs (seq) WHERE state = 'receiving';
CREATE INDEX jobs_open ON jobs (seq) WHERE state IN ('active', 'paused') OR follow IS NOT NULL;
CREATE INDEX jobs_following ON jobs (seq) WHERE follow IS NOT NULL;
CREATE INDEX jobs_manifest_pending ON jobs (seq) WHERE manifest = 'pending';

-- The pools that a job passes. Stage -1 is `encode`.
CREATE TABLE job_stages (
    job           BIGINT   NOT NULL,
    stage         SMALLINT NOT NULL,
    name          TEXT     NOT NULL,
    pool          BYTEA    NOT NULL, -- digest of the cascade, of the encoder for stage -1
    compatibility TEXT     NOT NULL,
    PRIMARY KEY (job, stage)
);

-- What changes of a job with every transaction: one row, locked before anything of the job is changed, and found from
-- the newest version backwards, which costs the same however many dead versions lie before it. (A primary key on
-- `job` alone would make every reader walk through all of them.) Arrays have an element per stage, `encode` first.
CREATE TABLE job_progress (
    job        BIGINT      NOT NULL,
    version    BIGINT      NOT NULL,
    images     BIGINT      NOT NULL,
    texts      BIGINT      NOT NULL, -- distinct ones
    done       BIGINT      NOT NULL,
    dead       BIGINT      NOT NULL,
    cancelled  BIGINT      NOT NULL,
    ready      BIGINT[]    NOT NULL,
    dispatched BIGINT[]    NOT NULL,
    passed     BIGINT[]    NOT NULL,
    low        BIGINT[]    NOT NULL, -- below it no image (text) is ready (wanted)
    touched_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp() -- last chunk of a streaming submit
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);

CREATE INDEX job_progress_newest ON job_progress (job, version);

-- One row per distinct prepared text and encoder; the digest covers both.
CREATE TABLE embeddings (
    id         BIGINT   PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    dispatch   BIGINT   NOT NULL DEFAULT 0,
    size       BIGINT,
    failures   INTEGER  NOT NULL DEFAULT 0,
    suspect    BOOLEAN  NOT NULL DEFAULT FALSE,
    state      TEXT     NOT NULL DEFAULT 'wanted' CHECK (state IN ('wanted', 'dispatched', 'done', 'dead')),
    digest     BYTEA    NOT NULL,
    encoder    BYTEA    NOT NULL,
    prepared   TEXT     NOT NULL,
    hosts      TEXT[]   NOT NULL DEFAULT '{}',
    error_code TEXT,
    error      TEXT,
    key        TEXT,
    sha256     BYTEA,
    notes      TEXT[]   NOT NULL DEFAULT '{}'
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.1);

CREATE UNIQUE INDEX embeddings_by_digest ON embeddings (digest);

-- The texts with the queue or an encoder: O(workers).
CREATE TABLE dispatched_texts (
    encoder   BYTEA  NOT NULL,
    embedding BIGINT NOT NULL,
    PRIMARY KEY (encoder, embedding)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);

-- The texts whose prompts have yet to learn that they are encoded or given up, and how far that has come: by the
-- prompts whose text it is (0), then those whose negative text it is (1).
CREATE TABLE spreading_texts (
    id             BIGINT   PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    embedding      BIGINT   NOT NULL,
    after_job      BIGINT   NOT NULL DEFAULT 0,
    after_position BIGINT   NOT NULL DEFAULT 0,
    role           SMALLINT NOT NULL DEFAULT 0
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);

CREATE TABLE prompts (
    job                BIGINT  NOT NULL,
    position           BIGINT  NOT NULL,
    first_index        BIGINT  NOT NULL,
    first_seed         BIGINT  NOT NULL,
    text_embedding     BIGINT  NOT NULL,
    negative_embedding BIGINT, -- NULL: no stage is guided
    images             INTEGER NOT NULL,
    text               TEXT    NOT NULL,
    negative           TEXT    NOT NULL,
    PRIMARY KEY (job, position)
);

CREATE INDEX prompts_by_text ON prompts (text_embedding, job, position);
CREATE INDEX prompts_by_negative ON prompts (negative_embedding, job, position) WHERE negative_embedding IS NOT NULL;

-- The distinct texts a job needs.
CREATE TABLE job_texts (
    job       BIGINT NOT NULL,
    embedding BIGINT NOT NULL,
    PRIMARY KEY (job, embedding)
);

CREATE INDEX job_texts_by_embedding ON job_texts (embedding, job);

-- What the user should know of a job's texts; a hundred at most.
CREATE TABLE job_notes (
    job  BIGINT NOT NULL,
    note TEXT   NOT NULL,
    PRIMARY KEY (job, note)
);

CREATE TYPE image_state AS ENUM ('waiting', 'ready', 'dispatched', 'done', 'dead', 'cancelled');

-- No index but the key, and half of each page free: every update is heap-only. Images of a state are found through
-- image_blocks, changed ones through image_changes.
CREATE TABLE images (
    job        BIGINT      NOT NULL,
    idx        BIGINT      NOT NULL,
    prompt     BIGINT      NOT NULL, -- position of its prompt
    dispatch   BIGINT      NOT NULL DEFAULT 0,
    version    BIGINT      NOT NULL,
    state      image_state NOT NULL,
    generation INTEGER     NOT NULL DEFAULT 1,
    failures   INTEGER     NOT NULL DEFAULT 0,
    stage      SMALLINT    NOT NULL DEFAULT 0,
    suspect    BOOLEAN     NOT NULL DEFAULT FALSE,
    hosts      TEXT[], -- NULL: none
    error_code TEXT,
    error      TEXT,
    PRIMARY KEY (job, idx)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.1, autovacuum_vacuum_threshold = 10000);

-- How many of 256 neighbouring images are in each state, so that a search skips the blocks that have none.
CREATE TABLE image_blocks (
    job        BIGINT  NOT NULL,
    block      BIGINT  NOT NULL, -- idx / 256
    waiting    INTEGER NOT NULL,
    ready      INTEGER NOT NULL,
    dispatched INTEGER NOT NULL,
    done       INTEGER NOT NULL,
    dead       INTEGER NOT NULL,
    cancelled  INTEGER NOT NULL,
    PRIMARY KEY (job, block)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.1, autovacuum_vacuum_threshold = 2000);

-- Which images a version of a job changed, in runs. An entry counts while its image still has that version.
CREATE TABLE image_changes (
    job     BIGINT   NOT NULL,
    version BIGINT   NOT NULL,
    first   BIGINT   NOT NULL, -- of the run
    last    BIGINT   NOT NULL,
    images  BIGINT[] NOT NULL, -- in order
    PRIMARY KEY (job, version, first)
);

-- What each stage of an image stored; the last one's is the picture.
CREATE TABLE outputs (
    job          BIGINT           NOT NULL,
    idx          BIGINT           NOT NULL,
    size         BIGINT           NOT NULL,
    seconds      DOUBLE PRECISION NOT NULL,
    stage        SMALLINT         NOT NULL,
    sha256       BYTEA            NOT NULL,
    key          TEXT             NOT NULL,
    worker       TEXT             NOT NULL,
    device_class TEXT             NOT NULL,
    PRIMARY KEY (job, idx, stage)
);
