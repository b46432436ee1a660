-- What a prompt brings besides its text: pictures to start from, masks, and a text of their own for the super-resolution
-- stages.

-- Pictures that users have sent. They lie in the object store under the hash of their bytes.
CREATE TABLE inputs (
    sha256    BYTEA       PRIMARY KEY CHECK (octet_length(sha256) = 32),
    stored_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    size      BIGINT      NOT NULL,
    width     INTEGER     NOT NULL,
    height    INTEGER     NOT NULL,
    is_mask   BOOLEAN     NOT NULL -- black and white, and not black alone
);

ALTER TABLE prompts
    ADD COLUMN style_embedding BIGINT, -- NULL: the prompt's text serves all stages
    ADD COLUMN extras          TEXT;   -- JSON; NULL: nothing

CREATE INDEX prompts_by_style ON prompts (style_embedding, job, position) WHERE style_embedding IS NOT NULL;
