-- Images that ended, dead or cancelled, before they passed the stage, which is one of theirs. What
-- is left of a stage does not count them.
ALTER TABLE job_stages ADD COLUMN stopped INTEGER NOT NULL DEFAULT 0;

UPDATE job_stages AS s
SET stopped = (SELECT count(*) FROM images AS i
               LEFT JOIN job_variants AS v ON v.job = i.job AND v.variant = i.variant
               WHERE i.job = s.job AND i.state IN ('dead', 'cancelled') AND i.stage <= s.stage
                 AND s.stage < coalesce(v.stages, (SELECT count(*) FROM job_stages AS o
                                                   WHERE o.job = s.job AND o.stage >= 0 AND o.own)))
WHERE s.stage >= 0 AND s.job IN (SELECT seq FROM jobs WHERE dead + cancelled > 0);
