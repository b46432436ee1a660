-- Images repeat what their prompt says, so that a commit needs no look at prompts.
ALTER TABLE images ADD COLUMN variant INTEGER;
