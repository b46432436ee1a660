-- What the farm signs with: 32 random bytes, made by the first coordinator that needs them.
ALTER TABLE farm ADD COLUMN secret BYTEA CHECK (octet_length(secret) = 32);
-- Whether the farm's workers make up what they store, as the fakes of tests do. NULL until the first coordinator says it.
ALTER TABLE farm ADD COLUMN makes_up BOOLEAN;
