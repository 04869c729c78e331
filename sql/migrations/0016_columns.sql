-- Columns of a user's own as datasets, one for each set of them.

ALTER TABLE dataset_versions
    DROP CONSTRAINT dataset_versions_dataset_check,
    ADD CONSTRAINT dataset_versions_dataset_check CHECK (
        dataset IN ('bars', 'features', 'signals', 'backtests', 'walk_forward')
        OR dataset ~ '^columns:.');
ALTER TABLE dataset_snapshots
    DROP CONSTRAINT dataset_snapshots_dataset_check,
    ADD CONSTRAINT dataset_snapshots_dataset_check CHECK (
        dataset IN ('bars', 'features') OR dataset ~ '^columns:.');
COMMENT ON COLUMN dataset_versions.dataset IS
    'A stage''s result, or columns:<set> for columns of the user''s own on the bars of the features';
COMMENT ON TABLE dataset_snapshots IS
    'Versions of bars, features and columns of the user''s own that can still be read, and their '
    'files';

CREATE FUNCTION input_key(symbol TEXT, tf TEXT, dataset TEXT) RETURNS TEXT
    LANGUAGE sql IMMUTABLE
    RETURN symbol || '|' || tf || CASE dataset WHEN 'features' THEN '' ELSE '|' || dataset END;
COMMENT ON FUNCTION input_key IS
    'What names an input in dataset_version_ids of a run: BTC|1D for features, BTC|1D|<dataset> for '
    'columns of the user''s own';
