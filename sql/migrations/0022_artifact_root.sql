-- The database and its artifact root know each other: a process that is given another root would
-- write results that nobody finds, and its retention would delete those of another store.
CREATE TABLE artifact_root (
    root_id  UUID NOT NULL DEFAULT gen_random_uuid(),
    place    TEXT,
    bound_at TIMESTAMPTZ,
    is_only  BOOLEAN PRIMARY KEY DEFAULT true CHECK (is_only),
    CHECK ((place IS NULL) = (bound_at IS NULL))
);
COMMENT ON TABLE artifact_root IS
    'The folder or bucket of this store''s artifacts, one row; docs/operations.md';
COMMENT ON COLUMN artifact_root.root_id IS
    'Stands in the file store-id of that folder; a process with another one is refused';
COMMENT ON COLUMN artifact_root.place IS
    'Where the root was when it was bound, for messages; it may be moved. NULL until then';
COMMENT ON COLUMN artifact_root.bound_at IS
    'When a process first used the store with this root, NULL until then';
COMMENT ON COLUMN artifact_root.is_only IS 'Always true: there is one row';
INSERT INTO artifact_root DEFAULT VALUES;
