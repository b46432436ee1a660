-- Of every picture that is sent a canonical PNG is stored: decoded once, upright, 8 bits a channel. Prompts may name it by the
-- hash of what was sent or of what is stored; each has a row, and both say what is stored.

ALTER TABLE inputs ADD COLUMN canonical TEXT; -- NULL: what was sent is stored as it came
ALTER TABLE inputs ADD COLUMN canonical_size INTEGER;
ALTER TABLE inputs ADD COLUMN orientation INTEGER NOT NULL DEFAULT 1; -- how it was turned, as EXIF counts
ALTER TABLE inputs ADD COLUMN notes TEXT; -- JSON list; NULL: none
