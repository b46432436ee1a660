-- What a job was forecast to take when that was first known, and what it took; and how fast each kind of device was when
-- it last ran a stage, so that a forecast needs no worker that has run it since it started.

CREATE TABLE job_forecasts (
    job      INTEGER PRIMARY KEY REFERENCES jobs (seq) ON DELETE CASCADE,
    at_ms    INTEGER NOT NULL,
    forecast TEXT    NOT NULL, -- JSON
    spent    TEXT              -- JSON, with the manifest
);

CREATE TABLE stage_rates (
    stage            TEXT    NOT NULL,
    pool             TEXT    NOT NULL, -- digest of the cascade, of the encoder for stage encode
    device_class     TEXT    NOT NULL,
    seconds_per_pass REAL    NOT NULL,
    measured_ms      INTEGER NOT NULL,
    PRIMARY KEY (stage, pool, device_class)
) WITHOUT ROWID;
