-- Every kind of stored object can be looked up by its key, and has a rule. Keys are long, so the
-- index has their hash.

CREATE INDEX embeddings_by_key ON embeddings (hashtextextended(key, 0)) WHERE key IS NOT NULL;

-- Previews and sheets are made again when somebody looks.
INSERT INTO retention (tenant, subject, outcome, seconds) VALUES ('', 'previews', '', 30 * 86400)
ON CONFLICT DO NOTHING;
