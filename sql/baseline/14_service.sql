-- API keys of the HTTP service, and counters that any number of processes add to.

CREATE TABLE api_keys (
    key_id          TEXT PRIMARY KEY,
    key_hash        TEXT NOT NULL UNIQUE CHECK (key_hash ~ '^[0-9a-f]{64}$'),
    name            TEXT NOT NULL CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9@._-]{0,63}$'),
    role            TEXT NOT NULL CHECK (role IN ('viewer', 'runner')),
    rate_per_minute INTEGER NOT NULL CHECK (rate_per_minute > 0),
    created_at      TIMESTAMPTZ NOT NULL DEFAULT now(),
    expires_at      TIMESTAMPTZ,
    revoked_at      TIMESTAMPTZ
);
COMMENT ON TABLE api_keys IS 'Who may use the service; a key is shown once and never stored';
COMMENT ON COLUMN api_keys.key_id IS 'The public beginning of the key';
COMMENT ON COLUMN api_keys.key_hash IS 'sha256 of the whole key, which holds 256 random bits';
COMMENT ON COLUMN api_keys.name IS 'The user';

CREATE TABLE metric_counts (
    name       TEXT NOT NULL,
    labels     JSONB NOT NULL CHECK (jsonb_typeof(labels) = 'object'),
    value      DOUBLE PRECISION NOT NULL CHECK (value BETWEEN 0 AND 1e300),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (name, labels)
) WITH (fillfactor = 50);
COMMENT ON TABLE metric_counts IS
    'Numbers for Prometheus that outlive the processes that count; a histogram is its buckets';
COMMENT ON COLUMN metric_counts.labels IS
    'Names and values of the labels, of closed sets; le is the upper bound of a bucket, which '
    'counts what is above the bound before';
COMMENT ON COLUMN metric_counts.updated_at IS 'When it was last added to, or measured';
