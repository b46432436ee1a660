-- Commands to some images of a job. The rows follow in chunks; `next` says how far that has come.
-- A command belongs to a generation of its job: one of an older generation does nothing any more.
CREATE TABLE image_commands (
    id         BIGINT  PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    job        BIGINT  NOT NULL,
    generation INTEGER NOT NULL,
    command    TEXT    NOT NULL CHECK (command IN ('cancel', 'retry')),
    filter     TEXT    NOT NULL, -- JSON; its ranges lie within the job
    next       BIGINT  NOT NULL  -- index of the first image that has yet to follow
);

CREATE INDEX image_commands_by_job ON image_commands (job);

-- Every stage of the job's images runs, also where its output is stored already.
ALTER TABLE jobs ADD COLUMN no_reuse BOOLEAN NOT NULL DEFAULT FALSE;
