-- What a prompt brings besides its text: pictures to start from, masks, and a text of their own for the super-resolution
-- stages.

-- Pictures that users have sent. They lie in the object store under the hash of their bytes.
CREATE TABLE inputs (
    sha256     TEXT    PRIMARY KEY,
    size       INTEGER NOT NULL,
    width      INTEGER NOT NULL,
    height     INTEGER NOT NULL,
    is_mask    INTEGER NOT NULL, -- black and white, and not black alone
    stored_ms  INTEGER NOT NULL
) WITHOUT ROWID;

ALTER TABLE prompts ADD COLUMN extras TEXT; -- JSON; NULL: nothing
ALTER TABLE prompts ADD COLUMN style_embedding INTEGER REFERENCES embeddings (id); -- NULL: the prompt's serves all stages

CREATE INDEX prompts_by_style ON prompts (style_embedding) WHERE encoded = 0 AND style_embedding IS NOT NULL;
