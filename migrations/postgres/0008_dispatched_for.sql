-- For which job a text was dispatched, so that a job's own are counted without a look at its texts; 0: not known.
ALTER TABLE dispatched_texts ADD COLUMN job BIGINT NOT NULL DEFAULT 0;
