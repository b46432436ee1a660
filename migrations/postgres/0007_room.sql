-- A text's row grows by half when it is encoded, and neighbours are encoded in one transaction, which can prune none of their
-- older versions: only with that much room on the page are they written without an entry in each index.
ALTER TABLE embeddings SET (fillfactor = 35);
