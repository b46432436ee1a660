-- Of every picture that is sent a canonical PNG is stored: decoded once, upright, 8 bits a channel. Prompts may name it by the
-- hash of what was sent or of what is stored; each has a row, and both say what is stored.

ALTER TABLE inputs
    ADD COLUMN canonical      BYTEA    CHECK (octet_length(canonical) = 32), -- NULL: what was sent is stored as it came
    ADD COLUMN canonical_size BIGINT,
    ADD COLUMN orientation    SMALLINT NOT NULL DEFAULT 1, -- how it was turned, as EXIF counts
    ADD COLUMN notes          TEXT;                        -- JSON list; NULL: none
