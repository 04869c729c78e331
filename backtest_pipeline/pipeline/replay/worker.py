"""The replay worker: reads a request on stdin, writes the response to stdout, both JSON.

`python -m backtest_pipeline.pipeline.replay.worker` runs on whatever code PYTHONPATH points to, so
the two messages are a contract between versions of the code:

    request   protocol, artifacts (folder), series (whether to return curves), runs: each with
              key, config (as in `backtest_runs`), asset, timeframe, and snapshots: version, uris
              and n_rows by `input_key`; strategy_files, the files of a user's own strategy by
              path, in hex; and plans, those that a run of a book follows
    response  protocol, code (uri of the source archive that ran), environment, engine,
              runs: each with key, and either error or run_id, fingerprint, metrics, results,
              trades (columns of `backtest_trades`), equity and benchmark (sha256, and ts and
              values if `series` is set), engine where it is not that of all, and for a run of a
              book blocks (a hash of its rows)

It reads nothing but the artifacts, and writes nothing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from backtest_pipeline.market.errors import BacktestError, InvalidInput
from backtest_pipeline.market.panel import OHLCV, Panel
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.pipeline.cross_section.ranked_account import ranked_account
from backtest_pipeline.pipeline.cross_section.ranked_identity import (
    ranked_run_id,
    rule_of_config,
    window_of,
)
from backtest_pipeline.pipeline.cross_section.ranked_universe import columns_read
from backtest_pipeline.pipeline.planning.planned_account import block_lines, planned_account
from backtest_pipeline.pipeline.planning.planned_identity import plan_key, planned_run_id
from backtest_pipeline.pipeline.planning.planned_runs import results_of_plans
from backtest_pipeline.pipeline.planning.trigger_columns import columns_of_plans
from backtest_pipeline.pipeline.replay.recorded_rows import (
    recorded_rows,
    rows_together,
    symbols_read,
    with_own_columns,
)
from backtest_pipeline.pipeline.replay.sent_values import json_number, sent_curve
from backtest_pipeline.pipeline.runs.daily_bars import DailyBars
from backtest_pipeline.pipeline.runs.identity import (
    RunTerms,
    config_of,
    configurations,
    fingerprints,
    hash_of,
    run_id_of,
    snapshot_id_of,
)
from backtest_pipeline.pipeline.runs.own_columns import own_columns_read
from backtest_pipeline.pipeline.runs.publish import results_of
from backtest_pipeline.pipeline.runs.run_files import kept_funding
from backtest_pipeline.pipeline.specs import SimulationSpec, checked
from backtest_pipeline.pipeline.stages.bars import BAR_COLUMNS
from backtest_pipeline.pipeline.stages.benchmark_assets import (
    UNIVERSE,
    held_in,
    others_held,
    rows_in,
)
from backtest_pipeline.pipeline.stages.conditions import signal_matrix
from backtest_pipeline.pipeline.stages.features import SNAPSHOT_COLUMNS
from backtest_pipeline.pipeline.stages.walk_forward.folds import WalkForwardPlan
from backtest_pipeline.pipeline.stages.walk_forward.walk_forward_batch import space_of
from backtest_pipeline.pipeline.versions import PLANNED, code_of_config
from backtest_pipeline.plans.plan import plan_from
from backtest_pipeline.research.validation.schedule import tasks_of
from backtest_pipeline.research.validation.walk_forward import (
    batches_of_tasks,
    choose,
    stitched,
    trade_stitched,
)
from backtest_pipeline.simulation import columns as account_columns
from backtest_pipeline.simulation.batch import BatchResult, simulate_batch
from backtest_pipeline.simulation.engines import engine_identity
from backtest_pipeline.simulation.marks import DAILY, MARK_COLUMNS, Marks
from backtest_pipeline.simulation.metrics.benchmarks import BENCHMARKS, benchmark_equity
from backtest_pipeline.simulation.trades import trade_columns
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.artifacts.code_archive import installed_code
from backtest_pipeline.storage.run_tables.strategy_sources import files_by_strategy
from backtest_pipeline.storage.tables.dimensions import SignalRow
from backtest_pipeline.storage.tables.environment import environment
from backtest_pipeline.strategies.cross_section.definition import KIND
from backtest_pipeline.strategies.known_strategies import use_sources
from backtest_pipeline.strategies.own.source import Source
from backtest_pipeline.strategies.registry import strategy_of
from backtest_pipeline.trading.engine_names import EngineName

PROTOCOL = 1


def respond(request: Mapping[str, Any]) -> dict[str, Any]:
    """The response to a request; see the module docstring.

    A run that cannot be computed returns its error; the others are computed.
    """
    artifacts = ArtifactStore(Path(request["artifacts"]))
    return {
        "protocol": PROTOCOL,
        "code": installed_code().uri,
        "environment": environment(),
        "engine": list(engine_identity(EngineName.ACCOUNT)),
        "runs": [_response_of(artifacts, run, request["series"]) for run in request["runs"]],
    }


def _response_of(artifacts: ArtifactStore, run: Mapping[str, Any], series: bool) -> dict[str, Any]:
    try:
        return {"key": run["key"], **_recomputed(artifacts, run, series)}
    except BacktestError as error:
        return {"key": run["key"], "error": str(error)}


def _recomputed(artifacts: ArtifactStore, run: Mapping[str, Any], series: bool) -> dict[str, Any]:
    config, asset, tf = run["config"], run["asset"], run["timeframe"]
    files = {name: bytes.fromhex(data) for name, data in run.get("strategy_files", {}).items()}
    if config.get("kind") == PLANNED:
        use_sources(*map(Source.of, files_by_strategy(files).values()))
        return _planned(artifacts, run, series)
    if config.get("kind") == KIND:
        return _ranked(artifacts, run, series)
    use_sources(*([Source.of(files)] if files else []))
    signal = SignalRow(0, "", config["strategy"], config["params"])
    terms = _terms(artifacts, config, asset)
    panel = recorded_rows(artifacts, tf, asset, run["snapshots"], SNAPSHOT_COLUMNS)
    contents = {name: snapshot["version"] for name, snapshot in run["snapshots"].items()}
    daily = _daily_bars(artifacts, run, panel.take(rows_in(panel, terms.window)), contents)
    names = own_columns_read(strategy_of(signal.strategy), signal.params, terms.config)
    panel = with_own_columns(artifacts, run, panel, names, contents)
    if terms.walk_forward is None:
        batch = _traded(artifacts, run, panel, daily, signal, terms, contents)
    else:
        plan = WalkForwardPlan.of_json(terms.walk_forward)
        batch = _walk_forward(panel, daily, signal, terms, plan)
    (configuration,) = configurations([signal], [asset], tf, terms)
    trades = trade_columns(batch.trades)
    return {
        "engine": list(engine_identity(terms.config.engine)),
        "run_id": str(
            run_id_of(configuration.hash, snapshot_id_of(contents), code_of_config(config))
        ),
        "fingerprint": fingerprints(batch)[0],
        "metrics": {name: json_number(values[0]) for name, values in batch.metrics.items()},
        "results": json.loads(results_of(batch)[0]),
        "trades": {
            name: [json_number(value) for value in v.tolist()] for name, v in trades.items()
        },
        "equity": sent_curve(batch.marks, batch.equity[0], series),
        "benchmark": sent_curve(batch.marks, batch.benchmark, series),
    }


def _planned(artifacts: ArtifactStore, run: Mapping[str, Any], series: bool) -> dict[str, Any]:
    """A run under plans; no strategist and no model is asked."""
    config, tf, snapshots = run["config"], run["timeframe"], run["snapshots"]
    logged = run["plans"]
    plans = [plan_from(one["plan"]) for one in logged]
    contents = {name: snapshot["version"] for name, snapshot in snapshots.items()}
    symbols, read = symbols_read(snapshots), columns_of_plans(plans, tf)
    features = [recorded_rows(artifacts, tf, one, snapshots, SNAPSHOT_COLUMNS) for one in symbols]
    parts = [with_own_columns(artifacts, run, part, read, contents) for part in features]
    panel = Panel.join(timeframe(tf), symbols, parts, list(parts[0].columns))
    terms = checked(SimulationSpec, _simulated(config)).config()
    account = planned_account(panel, plans, terms, config["symbol"])
    key = plan_key([(one["plan_id"], one["replan_reasons"], one["suppressed"]) for one in logged])
    versions = snapshot_id_of(contents)
    batch = account.account
    trades = {name: values.tolist() for name, values in trade_columns(batch.trades).items()}
    trades |= {name: values.to_pylist() for name, values in account.trade_columns().items()}
    return {
        "run_id": str(planned_run_id(config, key, versions, code_of_config(config))),
        "fingerprint": account.fingerprint,
        "metrics": {name: json_number(values[0]) for name, values in batch.metrics.items()},
        "results": json.loads(results_of_plans(account, logged, config)),
        "trades": {name: [json_number(v) for v in values] for name, values in trades.items()},
        "equity": sent_curve(batch.marks, batch.equity[0], series),
        "benchmark": sent_curve(batch.marks, batch.benchmark, series),
        "blocks": hash_of(block_lines(account.blocks("").to_pylist())),
    }


def _ranked(artifacts: ArtifactStore, run: Mapping[str, Any], series: bool) -> dict[str, Any]:
    """A run that ranks a universe; what its strategy says is in its configuration."""
    config, rule = run["config"], rule_of_config(run["config"])
    panel = rows_together(artifacts, run, columns_read(rule))
    terms = checked(SimulationSpec, _simulated(config)).config()
    account = ranked_account(rule, panel, terms, window_of(config), config["symbol"])
    versions = {name: one["version"] for name, one in run["snapshots"].items()}
    batch = account.book.account
    trades = {name: values.tolist() for name, values in trade_columns(batch.trades).items()}
    trades |= {name: values.to_pylist() for name, values in account.trade_columns().items()}
    return {
        "run_id": str(ranked_run_id(config, snapshot_id_of(versions))),
        "fingerprint": account.fingerprint,
        "metrics": {name: json_number(values[0]) for name, values in batch.metrics.items()},
        "results": json.loads(account.results()),
        "trades": {name: [json_number(v) for v in values] for name, values in trades.items()},
        "equity": sent_curve(batch.marks, batch.equity[0], series),
        "benchmark": sent_curve(batch.marks, batch.benchmark, series),
    }


def _terms(artifacts: ArtifactStore, config: Mapping[str, Any], asset: str) -> RunTerms:
    rates = config["funding"]
    return RunTerms(
        config=checked(SimulationSpec, _simulated(config)).config(),
        window=window_of(config),
        benchmark=config["benchmark"],
        funding=kept_funding(artifacts, rates, asset) if rates else None,
        walk_forward=config.get("walk_forward"),
    )


def _simulated(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `SimulationSpec`; a field unknown to this code is rejected by name later."""
    return {name: value for name, value in config.items() if name not in _NOT_SIMULATED}


_NOT_SIMULATED = {
    *("kind", "strategy", "params", "symbol", "timeframe", "start", "end"),
    *("benchmark", "funding", "walk_forward", "book", "symbols", "strategies"),
    *("models", "within_training"),
}


def _daily_bars(
    artifacts: ArtifactStore, run: Mapping[str, Any], panel: Panel, contents: dict[str, str]
) -> DailyBars:
    """The recorded days that mark runs on the panel; writes their hashes into `contents`."""
    recorded = [a for a in panel.assets if f"{a}|{DAILY}" in run["snapshots"]]
    if panel.timeframe.days <= 1 or not recorded:
        return DailyBars()
    parts = [
        recorded_rows(artifacts, DAILY, asset, run["snapshots"], MARK_COLUMNS) for asset in recorded
    ]
    found = DailyBars.of(panel, Panel.join(timeframe(DAILY), recorded, parts, MARK_COLUMNS), {})
    contents |= {f"{asset}|{DAILY}": digest for asset, digest in found.contents.items()}
    return found


def _traded(
    artifacts: ArtifactStore,
    run: Mapping[str, Any],
    panel: Panel,
    daily: DailyBars,
    signal: SignalRow,
    terms: RunTerms,
    contents: dict[str, str],
) -> BatchResult:
    """Backtest one signal in a window."""
    terms = replace(terms, config=config_of(signal, terms.config))
    keep = rows_in(panel, terms.window)
    read = [
        name for name in account_columns.columns_read([terms.config.rules]) if name in panel.columns
    ]
    columns = {name: panel[name] for name in (*BAR_COLUMNS, *read)}
    prices = Panel(panel.timeframe, panel.assets, panel.offsets, panel.ts, columns)
    bars = account_columns.with_config_columns(prices, terms.config).take(keep)
    events = np.ascontiguousarray(signal_matrix(panel, [signal])[:, keep])
    marks = daily.marks(bars)
    return simulate_batch(
        bars,
        events,
        terms.config,
        funding=terms.funding,
        marks=marks,
        benchmark=_benchmark(artifacts, run, bars, marks, terms, contents),
    )


def _benchmark(
    artifacts: ArtifactStore,
    run: Mapping[str, Any],
    bars: Panel,
    marks: Marks,
    terms: RunTerms,
    contents: dict[str, str],
) -> np.ndarray:
    if terms.benchmark in BENCHMARKS:
        return benchmark_equity(bars, marks, terms.benchmark, terms.config)
    tf, snapshots = run["timeframe"], run["snapshots"]
    own = f"|{tf}"
    known = sorted(name.removesuffix(own) for name in snapshots if name.endswith(own))
    names = known if terms.benchmark == UNIVERSE else [terms.benchmark]
    parts = [recorded_rows(artifacts, tf, asset, snapshots, OHLCV) for asset in names]
    held = held_in(Panel.join(timeframe(tf), names, parts, OHLCV), terms)
    of_others = DailyBars()
    if marks.is_daily.any():
        of_others = _daily_bars(artifacts, run, held, contents)
    return others_held(marks, held, of_others, terms)


def _walk_forward(
    panel: Panel, daily: DailyBars, signal: SignalRow, terms: RunTerms, plan: WalkForwardPlan
) -> BatchResult:
    """Run a walk-forward: choose parameters fold by fold, and trade the stitched test windows."""
    (asset,) = panel.assets
    space = space_of(signal.strategy, signal.params)
    question = plan.question(space, terms.config, terms.funding)
    tasks, _ = tasks_of(panel, asset, plan.schedule, rows_in(panel, terms.window))
    known = account_columns.with_config_columns(panel, terms.config)
    chosen = [
        c for block in batches_of_tasks(tasks, question) for c in choose(known, block, question)
    ]
    stretch = stitched(known, tasks, chosen, question)
    return trade_stitched([stretch], terms.config, terms.funding, daily.days)


def main() -> None:
    """Read the request on stdin, and write the response to stdout."""
    request = json.load(sys.stdin, parse_int=_whole)
    if request["protocol"] != PROTOCOL:
        raise InvalidInput(
            f"the request uses protocol {request['protocol']}, but this code supports {PROTOCOL}"
        )
    with redirect_stdout(sys.stderr):  # libraries may print
        response = respond(request)
    json.dump(response, sys.stdout, allow_nan=False)


def _whole(digits: str) -> int | float:
    """An integer literal as a number; the database writes large floats without a point."""
    return float(digits) if len(digits) > _MOST_DIGITS else int(digits)


_MOST_DIGITS = 16

if __name__ == "__main__":
    main()
