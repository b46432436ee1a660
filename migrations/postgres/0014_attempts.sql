-- What became of attempts at stages of images, where it was not the output that is in `outputs`: failures, deaths, losses,
-- returns, and outputs that a rewind has forgotten. Of each image the latest 20 dispatches.
CREATE TABLE attempts (
    job          BIGINT           NOT NULL,
    idx          BIGINT           NOT NULL,
    dispatch     BIGINT           NOT NULL,
    at           TIMESTAMPTZ      NOT NULL DEFAULT clock_timestamp(),
    seconds      DOUBLE PRECISION NOT NULL,
    generation   INTEGER          NOT NULL,
    stage        SMALLINT         NOT NULL,
    counted      BOOLEAN          NOT NULL, -- as a failure of the image
    outcome      TEXT             NOT NULL
        CHECK (outcome IN ('done', 'failed', 'died', 'input_missing', 'interrupted', 'returned')),
    worker       TEXT             NOT NULL, -- '': not known
    place        TEXT             NOT NULL, -- host and device; '': not known
    device_class TEXT             NOT NULL,
    reason       TEXT             NOT NULL,
    message      TEXT             NOT NULL,
    PRIMARY KEY (job, idx, dispatch)
);

-- An output is an attempt that went well. NULL: stored by a version before. (The default comes second, so that the rows that
-- are there need not be written anew.)
ALTER TABLE outputs
    ADD COLUMN generation INTEGER,
    ADD COLUMN dispatch   BIGINT,
    ADD COLUMN at         TIMESTAMPTZ;
ALTER TABLE outputs ALTER COLUMN at SET DEFAULT clock_timestamp();
