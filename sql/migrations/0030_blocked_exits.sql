-- Plans have exits that are blocked, which the tables count too.
COMMENT ON TABLE block_events IS
    'Blocked entries, and blocked exits of plans, with their reasons; results.limit_enforcement of the run counts them';
COMMENT ON COLUMN block_events.ts IS 'Close of the bar at whose open it would have been filled';
COMMENT ON COLUMN block_events.qty IS
    'Size of what was blocked, in units; NULL where the sizing was undefined, or nothing was left to close';
COMMENT ON VIEW block_causes IS 'Blocked entries and exits of each run by reason';
COMMENT ON COLUMN block_causes.n IS 'Number of blocked entries and exits';
COMMENT ON COLUMN block_causes.share IS 'Of all blocked entries and exits of the run, fraction';
