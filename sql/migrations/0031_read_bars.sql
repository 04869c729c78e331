-- Which bars are due follows from when their source was last read, also where nothing had changed.
ALTER TABLE dataset_versions ADD COLUMN read_at TIMESTAMPTZ;
COMMENT ON COLUMN dataset_versions.read_at IS
    'When the source of bars was last read for them, changed or not; NULL for other datasets';
