-- A client's own names for its prompts, which change no picture.
ALTER TABLE prompts ADD COLUMN custom_id TEXT; -- NULL: none
ALTER TABLE prompts ADD COLUMN labels TEXT;    -- JSON, an object of strings; NULL: none
ALTER TABLE prompts ADD COLUMN line INTEGER;   -- of the client's file, counted from 1; NULL: none

CREATE UNIQUE INDEX prompts_by_custom_id ON prompts (job, custom_id) WHERE custom_id IS NOT NULL;

-- What the user should know of a job's texts, and which images each note is about; a hundred or so of a job.
CREATE TABLE text_notes (
    job         INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
    embedding   INTEGER NOT NULL, -- 0: noted by the version before, which did not say
    role        INTEGER NOT NULL, -- what the text is to the images: 0 prompt, 1 negative prompt, 2 style
    ord         INTEGER NOT NULL, -- place among the text's notes
    first_index INTEGER NOT NULL, -- the first of the images
    line        INTEGER,          -- of the first image's prompt
    images      INTEGER NOT NULL, -- how many; not counted far beyond 10,000
    note        TEXT    NOT NULL,
    PRIMARY KEY (job, embedding, role, ord)
) WITHOUT ROWID;

INSERT INTO text_notes (job, embedding, role, ord, first_index, images, note)
SELECT job, 0, 0, row_number() OVER (PARTITION BY job ORDER BY note), 0, 0, note FROM job_notes;

DROP TABLE job_notes;
