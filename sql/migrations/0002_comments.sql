-- Comments that had to be read twice, said as a trader would say them.
COMMENT ON COLUMN dim_assets.source IS 'Source of the bars';
COMMENT ON COLUMN dim_assets.is_synthetic IS
    'Whether the bars are synthetic, as in the sample market';
COMMENT ON COLUMN dim_timeframe.tf_days_nominal IS
    'Length in days; the average length for calendar bars';
COMMENT ON COLUMN dim_signals.is_active IS
    'Whether a refresh computes it; FALSE for parameters that only ran on demand';
COMMENT ON COLUMN asset_identity.tf IS 'Timeframe of the source bars that the remark is about';
COMMENT ON TABLE asset_identity IS
    'Remarks on which coin an asset really is, from its bars and symbol; docs/data-quality.md';
COMMENT ON TABLE data_quality IS 'Numbers of rows that were skipped or flagged, by reason';
COMMENT ON TABLE dataset_versions IS
    'The newest version of each dataset; it is rebuilt only when its inputs or code change';
COMMENT ON COLUMN dataset_versions.input_version IS 'Version of the input it was made from';
COMMENT ON COLUMN dataset_versions.generation IS
    'Stays the same while rows are only appended, and changes when a stored row changes';
COMMENT ON COLUMN dataset_versions.uris IS
    'Files that hold the rows, oldest rows first; empty if the rows are in a table';
COMMENT ON TABLE dataset_snapshots IS
    'Versions of bars and features that can still be read, with their files';
COMMENT ON COLUMN dataset_snapshots.follows IS
    'The previous newest version, which may have been removed since';
COMMENT ON COLUMN cmc_features.gap_bars IS 'Source bars missing since the previous bar';
COMMENT ON TABLE cmc_features IS
    'All features, one row per bar; undefined features, as during warm-up, are NULL';
COMMENT ON TABLE feature_checkpoints IS
    'State from which the features of an asset and timeframe are continued when bars are appended';
COMMENT ON COLUMN feature_checkpoints.input_generation IS
    'Generation of the bars; it stays the same while bars are only appended';
COMMENT ON COLUMN feature_checkpoints.n_rows IS
    'Number of rows, from the first, that are not recomputed';
COMMENT ON COLUMN feature_checkpoints.standing IS
    'State of each recursive average after these rows: number of values, and level';
COMMENT ON TABLE external_watermarks IS
    'State of the external feature table when it was last read; docs/external-features.md';
COMMENT ON COLUMN external_watermarks.version IS
    'Hash of the number of rows, their timestamps and their update times';
COMMENT ON TABLE signals IS
    'Entries and exits of presets: the first bar of each stretch on which a condition is true';
COMMENT ON COLUMN signals.feature_snapshot IS 'Full feature row of the bar';
COMMENT ON COLUMN signals.feature_version IS 'Version of the features it was computed from';
COMMENT ON TABLE signal_state IS 'Where the latest refresh of each preset''s signals stopped';
COMMENT ON COLUMN signal_state.last_ts IS 'Last bar whose features were read';
COMMENT ON COLUMN signal_state.long_since IS 'Bar of the long entry that has no exit yet';
COMMENT ON COLUMN signal_state.short_since IS 'Bar of the short entry that has no exit yet';
COMMENT ON TABLE trials IS
    'Every configuration ever evaluated; Sharpe ratios are deflated by their number';
COMMENT ON COLUMN trials.trial_id IS 'Hash of the configuration, the data and the code';
COMMENT ON COLUMN trials.configuration_id IS 'Hash of the configuration alone';
COMMENT ON COLUMN trials.sharpe IS
    'Sharpe ratio of daily returns, not annualised; NULL where undefined';
COMMENT ON COLUMN trials.first_week IS 'Monday of the first week in weekly_returns';
COMMENT ON COLUMN backtest_runs.trial_id IS 'The run''s entry in the trial ledger';
COMMENT ON COLUMN backtest_runs.is_current IS
    'Whether it is the newest run of its configuration, asset and timeframe';
COMMENT ON COLUMN backtest_runs.deleting_since IS
    'When its deletion began; its files are removed first, then the row, and no reader sees it';
COMMENT ON COLUMN backtest_runs.searched IS 'The text that a text search matches';
COMMENT ON VIEW visible_runs IS 'All runs except those being deleted; every reader uses this view';
COMMENT ON COLUMN backtest_trades.mae IS
    'Maximum adverse excursion while the position was open, fraction of the entry price';
COMMENT ON COLUMN backtest_trades.mfe IS
    'Maximum favourable excursion while the position was open, fraction of the entry price';
COMMENT ON COLUMN backtest_trades.pnl IS
    'Profit after fees, slippage and funding, in the quote currency';
COMMENT ON COLUMN backtest_metrics.undefined IS 'Reason for each NULL: {"metric": "reason"}';
COMMENT ON TABLE run_pins IS 'Runs that retention keeps, whatever their age';
COMMENT ON TABLE quarantined_runs IS
    'Runs whose replay gave a different result; left out wherever runs are compared';
COMMENT ON TABLE block_events IS
    'Blocked entries with their reasons; results.limit_enforcement of the run counts them';
COMMENT ON COLUMN block_events.ts IS
    'Close of the bar at whose open the entry would have been filled';
COMMENT ON COLUMN block_events.trigger_id IS
    'Trigger of the plan; NULL if the run follows a strategy, not a plan';
COMMENT ON COLUMN block_events.qty IS
    'Size of the blocked entry, in units; NULL where the sizing was undefined';
COMMENT ON TABLE plan_log IS 'The plans that a run followed, in order';
COMMENT ON COLUMN plan_log.effective_ts IS 'Market time from which it was followed';
COMMENT ON COLUMN plan_log.prompt_hash IS
    'sha256 of the model''s prompt; NULL if no model wrote the plan';
COMMENT ON COLUMN plan_log.response_hash IS 'sha256 of the model''s response';
COMMENT ON COLUMN run_robustness.draws IS 'Number of draws of each resampling method';
COMMENT ON COLUMN run_robustness.fragile IS
    'Whether a changed assumption flips the sign of the total return, or halves a gain';
COMMENT ON COLUMN run_robustness.break_even_bps IS
    'Cost per side (fee plus slippage) at which the total return is 0, basis points';
COMMENT ON COLUMN run_robustness.envelope IS
    'The run unchanged, and with each assumption changed: [{"assumption", "total_return", ...}]';
COMMENT ON COLUMN run_robustness.undefined IS 'Reason for each NULL: {"number": "reason"}';
COMMENT ON TABLE gate_sets IS
    'Registered gates: [{"name", "metric", "at_least" or "at_most"}]; they can never be changed';
COMMENT ON COLUMN gate_sets.registered_at IS
    'Time of registration, always set by the database itself';
COMMENT ON TABLE leaderboards IS 'The latest published leaderboards; their rows are in leaderboard';
COMMENT ON COLUMN leaderboards.board_id IS
    'Hash of the runs, the gates, the code and the ledger''s trial counts';
COMMENT ON COLUMN leaderboards.registered_after_results IS
    'Whether the gates were registered after a ranked configuration was first tried; such gates '
    'prove nothing';
COMMENT ON COLUMN leaderboard.unranked IS 'Why the run has no rank';
COMMENT ON COLUMN leaderboard.n_days IS 'Number of daily returns behind the Sharpe ratio';
COMMENT ON COLUMN leaderboard.undefined IS
    'Metrics that are NULL; they count as 0 in a score and pass no gate';
COMMENT ON TABLE negative_controls IS
    'Searches on random markets without an edge, and how many looked significant; '
    'docs/leaderboard.md';
COMMENT ON COLUMN negative_controls.n_assets IS
    'Stored assets that the random markets are modelled on';
COMMENT ON COLUMN negative_controls.n_families IS 'Strategies, counted once per random market';
COMMENT ON COLUMN negative_controls.n_run IS
    'Strategies, of n_families, whose best run has a dsr of at least 0.95, as for stored runs';
COMMENT ON COLUMN negative_controls.walk_forward_rate IS
    'n_walk_forwards_passed / n_walk_forwards; 0 without any walk-forward';
COMMENT ON TABLE backtest_jobs IS
    'Jobs; every change of status is a single UPDATE guarded by status and attempt';
COMMENT ON COLUMN backtest_jobs.stage IS 'Stage of the computation in progress';
COMMENT ON COLUMN backtest_jobs.n_units IS
    'Total units of work; finished ones are rows of backtest_job_units';
COMMENT ON COLUMN backtest_jobs.attempt_count IS
    'Number of the current or last attempt; workers of earlier attempts can change nothing';
COMMENT ON COLUMN backtest_jobs.lease_expires_at IS
    'Until when the worker counts as alive; the job can be taken over only afterwards';
COMMENT ON COLUMN backtest_jobs.cancel_requested_at IS
    'Request to cancel the current attempt; a new attempt starts without one';
COMMENT ON COLUMN backtest_jobs.dagster_run_id IS 'Dagster run of the current or last attempt';
COMMENT ON COLUMN backtest_jobs.resumes IS
    'The ended job that this one repeats, and whose stored units it reused';
COMMENT ON TABLE backtest_job_units IS
    'Stored units of work of a job; a resumed job does not compute them again';
