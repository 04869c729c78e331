"""The ledger of trials: every configuration that was ever evaluated, once per content."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from backtest_pipeline.storage import copy

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Cursor


def record_trials(cursor: Cursor, trials: pa.Table) -> int:
    """Enter the trials that the ledger does not hold yet; what it holds stays as it is.

    Args:
        cursor: its transaction makes the trials appear.
        trials: columns of `trials`, the ids as text, as `pipeline.ledger.trials_of` gives them.

    Returns:
        How many were new.
    """
    if trials.num_rows == 0:
        return 0
    copy.stage(cursor, "staged_trials", trials)
    added = copy.insert_new(cursor, "trials", "staged_trials", trials.column_names, "trial_id")
    copy.run(cursor, "DROP TABLE staged_trials")
    return added
