"""What an export holds of a run, as tables in a fixed column order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.pipeline.replay import bundle_verifier
from backtest_pipeline.pipeline.runs.query import RunDetail, stored_monthly, stored_series
from backtest_pipeline.pipeline.versions import PLANNED
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.report.json_values import plain
from backtest_pipeline.storage.run_tables.recorded_runs import stored_trades
from backtest_pipeline.strategies.cross_section.definition import KIND

_FURTHER = {PLANNED: bundle_verifier.OF_PLANS, KIND: bundle_verifier.OF_RANKS}
_STAMP = pa.timestamp("us", "UTC")


def tables_of_run(workspace: Workspace, run: RunDetail) -> dict[str, pa.Table]:
    """Trades, metrics, equity (with drawdown, exposure and benchmark) and monthly returns."""
    row = {"run_id": run.run_id, "symbol": run.symbol, "artifact_uri": run.artifact_uri}
    series = stored_series(workspace, row)
    values = {**run.metrics, **run.significance}
    metrics = {
        "metric": pa.array(list(values), pa.string()),
        "value": pa.array(list(values.values()), pa.float64()),
        "undefined": pa.array([run.undefined.get(name) for name in values], pa.string()),
    }
    with workspace.database.begin() as connection:
        trades = stored_trades(connection, run.run_id)
    return {
        "trades": _trades(
            trades,
            series["ts"].cast(pa.int64()).to_numpy(),
            run.timeframe,
            further=_FURTHER.get(run.split, ()),
        ),
        "metrics": pa.table(metrics),
        "equity": series,
        "monthly_returns": stored_monthly(workspace, row),
    }


def _trades(
    rows: list[dict[str, Any]], ts: np.ndarray, tf: str, *, further: Sequence[str]
) -> pa.Table:
    """Rows of `backtest_trades` in a fixed column order, with the position of each entry's bar."""
    opens = np.unique(timeframe(tf).period_bounds(ts)[0])  # a bar may have several marks
    bars = np.searchsorted(opens, [row["entry_ts"] for row in rows])
    kinds = {
        **dict.fromkeys(("entry_ts", "exit_ts"), _STAMP),
        **dict.fromkeys(("trade_no", "entry_bar", "bars_held"), pa.int64()),
        **dict.fromkeys(("direction", "exit_reason"), pa.string()),
        **dict.fromkeys(("entry_stop_kind", "exit_stop_kind"), pa.string()),
        **dict.fromkeys(("is_open", "entry_after_gap"), pa.bool_()),
    }
    whole = [{**row, "entry_bar": int(bar)} for row, bar in zip(rows, bars, strict=True)]
    names = (*bundle_verifier.FINGERPRINTED, *further)
    kinds |= {**dict.fromkeys(further, pa.string()), "is_part": pa.bool_()}
    return pa.table(
        {
            name: pa.array([row[name] for row in whole], kinds.get(name, pa.float64()))
            for name in names
        }
    )


def table_of_blocks(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows of `block_events` in a fixed column order."""
    kinds = {"event_no": pa.int64(), "ts": _STAMP, "qty": pa.float64()}
    names = ("event_no", "ts", "symbol", "timeframe", "trigger_id", "side", "qty", "reason")
    return pa.table(
        {
            name: pa.array([row[name] for row in rows], kinds.get(name, pa.string()))
            for name in (*names, "class", "detail")
        }
    )


def table_of_plans(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows of `plan_log`; the plan as JSON, its reasons separated by commas."""
    stamps = ("generated_at_actual", "effective_ts", "valid_until")
    texts = ("origin", "model", "prompt_hash", "response_hash", "transcript", "opinion")
    kinds = {
        "replan_sequence": pa.int64(),
        "plan_id": pa.string(),
        **dict.fromkeys(stamps, _STAMP),
        "replan_reasons": pa.string(),
        "suppressed": pa.int64(),
        **dict.fromkeys(texts, pa.string()),
        "plan": pa.string(),
    }
    written = [
        {
            **row,
            "replan_reasons": ",".join(row["replan_reasons"]),
            "plan": json.dumps(plain(row["plan"]), sort_keys=True, allow_nan=False),
        }
        for row in rows
    ]
    return pa.table(
        {name: pa.array([row[name] for row in written], kind) for name, kind in kinds.items()}
    )
