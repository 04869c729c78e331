-- Which bars are due follows from when their source was last read, where it does not tell its state.
ALTER TABLE dataset_versions ADD COLUMN read_at TIMESTAMPTZ;
COMMENT ON COLUMN dataset_versions.read_at IS
    'When the source of bars was last read for them while it did not tell its state; else NULL';
