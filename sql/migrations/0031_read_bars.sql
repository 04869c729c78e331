-- Which bars are due follows from when their source was last read, where it does not tell its state.
ALTER TABLE source_states ALTER COLUMN state DROP NOT NULL;
COMMENT ON COLUMN source_states.state IS
    'Hash of what tells a change of the source: sizes and times of its files, or the last bar that '
    'is over; NULL where the source tells nothing';
COMMENT ON COLUMN source_states.read_at IS
    'When the source was read in this state; where it tells none, when it was last read';
