-- What a model thinks of a plan for the judge is kept, as the conversation that a plan comes from is.
ALTER TABLE plan_log ADD COLUMN opinion TEXT CHECK (opinion ~ '^[0-9a-f]{64}$');
COMMENT ON COLUMN plan_log.opinion IS
    'The transcript of what a language model thought of the plan after this run, sha256; NULL where none was asked';
