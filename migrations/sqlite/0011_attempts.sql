-- What became of attempts at stages of images, where it was not the output that is in `outputs`: failures, deaths, losses,
-- returns, and outputs that a rewind has forgotten. Of each image the latest 20 dispatches.
CREATE TABLE attempts (
    job          INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
    idx          INTEGER NOT NULL,
    dispatch     INTEGER NOT NULL,
    generation   INTEGER NOT NULL,
    stage        INTEGER NOT NULL,
    outcome      TEXT    NOT NULL
        CHECK (outcome IN ('done', 'failed', 'died', 'input_missing', 'interrupted', 'returned')),
    counted      INTEGER NOT NULL, -- as a failure of the image
    at_ms        INTEGER NOT NULL,
    seconds      REAL    NOT NULL,
    worker       TEXT    NOT NULL, -- '': not known
    place        TEXT    NOT NULL, -- host and device; '': not known
    device_class TEXT    NOT NULL,
    reason       TEXT    NOT NULL,
    message      TEXT    NOT NULL,
    PRIMARY KEY (job, idx, dispatch)
) WITHOUT ROWID;

-- An output is an attempt that went well. NULL: stored by a version before.
ALTER TABLE outputs ADD COLUMN generation INTEGER;
ALTER TABLE outputs ADD COLUMN dispatch INTEGER;
ALTER TABLE outputs ADD COLUMN at_ms INTEGER;
