-- Plans are made once and kept, so they must not be made from the statistics of a table that was all but empty: until a
-- bulk table has some thousand rows it has none, and the planner takes it for a table of some pages, which goes by key.
--
-- And what an old snapshot had kept from being removed is removed soon after its end, though it may be little: versions
-- of rows are pruned where they lie as a rule, so the vacuum finds little to do at other times.

ALTER TABLE images SET (
    autovacuum_analyze_threshold = 5000, autovacuum_vacuum_insert_threshold = 5000,
    autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);
ALTER TABLE embeddings SET (
    autovacuum_analyze_threshold = 5000, autovacuum_vacuum_insert_threshold = 5000,
    autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);
ALTER TABLE image_blocks SET (
    autovacuum_analyze_threshold = 5000, autovacuum_vacuum_insert_threshold = 5000,
    autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);
ALTER TABLE prompts SET (autovacuum_analyze_threshold = 5000, autovacuum_vacuum_insert_threshold = 5000);
ALTER TABLE job_texts SET (autovacuum_analyze_threshold = 5000, autovacuum_vacuum_insert_threshold = 5000);
ALTER TABLE outputs SET (autovacuum_analyze_threshold = 5000, autovacuum_vacuum_insert_threshold = 5000);
ALTER TABLE image_changes SET (autovacuum_analyze_threshold = 5000, autovacuum_vacuum_insert_threshold = 5000);
