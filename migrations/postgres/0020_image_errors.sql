-- Finding images by failure without a look at others.
-- An image's code is NULL unless it failed, so it changes seldom, and other updates stay heap-only.
CREATE INDEX images_by_error ON images (job, error_code, idx) WHERE error_code IS NOT NULL;
