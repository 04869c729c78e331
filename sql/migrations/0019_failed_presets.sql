ALTER TABLE signal_state ADD failure TEXT;
COMMENT ON COLUMN signal_state.failure IS
    'Why the preset could not be computed on this asset: it has no signals and no current run there, and every refresh tries again; NULL where it was computed';
-- Few rows have one, and every refresh asks for them.
CREATE INDEX signal_state_failures ON signal_state (tf, id) WHERE failure IS NOT NULL;
