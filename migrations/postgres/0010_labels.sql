-- A client's own names for its prompts, which change no picture.
ALTER TABLE prompts
    ADD COLUMN custom_id TEXT COLLATE "C", -- NULL: none
    ADD COLUMN labels    TEXT,             -- JSON, an object of strings; NULL: none
    ADD COLUMN line      BIGINT;           -- of the client's file, counted from 1; NULL: none

CREATE UNIQUE INDEX prompts_by_custom_id ON prompts (job, custom_id) WHERE custom_id IS NOT NULL;

-- What the user should know of a job's texts, and which images each note is about; a hundred or so of a job. It replaces
-- job_notes, which stays for coordinators of the version before until the last of them is gone.
CREATE TABLE text_notes (
    job         BIGINT   NOT NULL,
    embedding   BIGINT   NOT NULL, -- 0: noted by the version before, which did not say
    role        SMALLINT NOT NULL, -- what the text is to the images: 0 prompt, 1 negative prompt, 2 style
    ord         SMALLINT NOT NULL, -- place among the text's notes
    first_index BIGINT   NOT NULL, -- the first of the images
    line        BIGINT,            -- of the first image's prompt
    images      BIGINT   NOT NULL, -- how many; not counted far beyond 10,000
    note        TEXT     NOT NULL,
    PRIMARY KEY (job, embedding, role, ord)
);

INSERT INTO text_notes (job, embedding, role, ord, first_index, images, note)
SELECT job, 0, 0, row_number() OVER (PARTITION BY job ORDER BY note), 0, 0, note FROM job_notes;
