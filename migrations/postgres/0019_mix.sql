-- What the images with settings of their own come to, stage by stage; JSON, NULL: there are none.
ALTER TABLE job_progress ADD COLUMN mix TEXT;
