-- Keys of the HTTP service, and counts that any number of processes add to.

CREATE TABLE api_keys (
    key_id         TEXT PRIMARY KEY,
    key_hash       TEXT NOT NULL UNIQUE,
    name           TEXT NOT NULL,
    role           TEXT NOT NULL CHECK (role IN ('viewer', 'runner')),
    rate_per_minute INTEGER NOT NULL CHECK (rate_per_minute > 0),
    created_at     TIMESTAMPTZ NOT NULL DEFAULT now(),
    expires_at     TIMESTAMPTZ,
    revoked_at     TIMESTAMPTZ
);
COMMENT ON TABLE api_keys IS 'Who may ask the service; a key itself is shown once and never stored';
COMMENT ON COLUMN api_keys.key_id IS 'The public beginning of the key';
COMMENT ON COLUMN api_keys.key_hash IS 'sha256 of the whole key, which is 256 random bits';

CREATE TABLE metric_counts (
    name   TEXT NOT NULL,
    labels JSONB NOT NULL CHECK (jsonb_typeof(labels) = 'object'),
    value  DOUBLE PRECISION NOT NULL CHECK (value BETWEEN 0 AND 1e300),
    PRIMARY KEY (name, labels)
);
COMMENT ON TABLE metric_counts IS
    'Counters that outlive the processes that count, for Prometheus; a histogram is its buckets';
