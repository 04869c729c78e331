"""Stage `walk_forward`: folds, their verdicts, and the published out-of-sample runs."""
