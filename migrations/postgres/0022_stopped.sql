-- Images that ended, dead or cancelled, before they passed a stage of theirs, by stage as in the other counters. What is
-- left of a stage does not count them.
ALTER TABLE job_progress ADD COLUMN stopped BIGINT[] NOT NULL DEFAULT '{}';

UPDATE job_progress AS p
SET stopped = ARRAY (
    SELECT (SELECT count(*) FROM images AS i
            LEFT JOIN job_variants AS v ON v.job = i.job AND v.variant = i.variant
            WHERE i.job = p.job AND i.state IN ('dead', 'cancelled') AND i.stage <= s.stage
              AND s.stage < coalesce(v.stages, (SELECT json_array_length(j.settings::json -> 'stages')
                                                FROM jobs AS j WHERE j.seq = p.job)))
    FROM job_stages AS s WHERE s.job = p.job ORDER BY s.stage)
WHERE p.dead + p.cancelled > 0;
