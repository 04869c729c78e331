"""Small sources of bars, and what a store holds, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pandas as pd
import pyarrow as pa
import sqlalchemy as sa

from backtest_pipeline.market.panel import OHLCV, Panel
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import DAY_US, timeframe
from backtest_pipeline.market.validation import RowIssue
from backtest_pipeline.pipeline.stage import StageReport
from backtest_pipeline.pipeline.use_cases.refresh import refresh_backtests, refresh_signals
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.sources.base import AssetInfo, BarSource, SourceBars, require_known
from backtest_pipeline.sources.sample import SampleMarket

ASSETS = ("S-ALPHA", "S-MU", "S-ZETA")
PARTITIONS = (
    *(Partition(a, tf) for tf in ("4H", "1D", "1W", "1M_CAL") for a in ("S-ALPHA", "S-ZETA")),
    Partition("S-MU", "1D"),
    Partition("S-MU", "3D"),
)


@dataclass(frozen=True)
class StaticSource:
    """A source over panels that are given."""

    panels: Mapping[str, Panel]
    issues: tuple[RowIssue, ...] = ()
    known_ids: tuple[tuple[str, int], ...] = ()
    name: str = "static"
    synthetic: bool = True

    def symbols(self) -> tuple[str, ...]:
        return tuple(sorted({a for panel in self.panels.values() for a in panel.assets}))

    def states(self, assets: Sequence[str]) -> dict[str, str]:
        return {}

    def read(self, assets: Sequence[str] | None = None) -> SourceBars:
        wanted = self.symbols() if assets is None else tuple(assets)
        require_known(wanted, self.symbols())
        ids = dict(self.known_ids)
        return SourceBars(
            panels={
                name: panel.select([a for a in panel.assets if a in wanted])
                for name, panel in self.panels.items()
            },
            assets=tuple(AssetInfo(a, a, "crypto", ids.get(a), self.synthetic) for a in wanted),
            issues=tuple(issue for issue in self.issues if issue.asset in wanted),
        )


@cache
def sample_panels() -> dict[str, Panel]:
    """The last part of three assets of the sample market, one of them delisted in May 2025."""
    bars = SampleMarket().read(ASSETS)
    since = {"1D": us("2024-06-01"), "1H": us("2025-11-01")}
    return {name: panel.take(panel.ts >= since[name]) for name, panel in bars.panels.items()}


def us(day: str) -> int:
    return int(np.datetime64(day, "us").astype(np.int64))


def until(day: str) -> StaticSource:
    """The sample source as it was at the beginning of a day."""
    end = us(day)
    return changed(lambda panel: panel.take(panel.ts < end))


def changed(change: Callable[[Panel], Panel]) -> StaticSource:
    """The sample source with each of its panels changed."""
    return StaticSource({name: change(panel) for name, panel in sample_panels().items()})


def whole() -> StaticSource:
    return StaticSource(sample_panels())


def daily_panel(lengths: Mapping[str, int], seed: int = 7) -> Panel:
    """Random walks of daily bars, each asset's last bar at the end of 2025."""
    rng = np.random.default_rng(seed)
    offsets = np.concatenate(([0], np.cumsum(list(lengths.values())))).astype(np.int64)
    ends = us("2026-01-01") - 1000
    stamps = [ends - DAY_US * np.arange(n)[::-1] for n in lengths.values()]
    close = np.concatenate(
        [100 * np.exp(np.cumsum(rng.normal(0, 0.05, n))) for n in lengths.values()] or [[]]
    )
    open_ = close * np.exp(rng.normal(0, 0.01, len(close)))
    columns = {
        "open": open_,
        "high": np.maximum(open_, close) * 1.01,
        "low": np.minimum(open_, close) * 0.99,
        "close": close,
        "volume": rng.random(len(close)) * 1e6,
    }
    ts = np.concatenate(stamps).astype(np.int64) if stamps else np.empty(0, np.int64)
    return Panel(timeframe("1D"), tuple(lengths), offsets, ts, {n: columns[n] for n in OHLCV})


def refresh(
    workspace: Workspace,
    source: BarSource,
    partitions: Sequence[Partition] = PARTITIONS,
    config: SimulationConfig | None = None,
    *,
    rebuild: bool = False,
) -> dict[str, StageReport]:
    """The whole chain; the report of each stage."""
    reports = list(refresh_signals(workspace, source, partitions, rebuild=rebuild))
    config = config or SimulationConfig()
    reports.append(refresh_backtests(workspace, partitions, config, rebuild=rebuild))
    return {report.stage: report for report in reports}


def as_new_process(workspace: Workspace) -> Workspace:
    """The same store, of whose artifacts nothing has been read yet."""
    return replace(workspace, artifacts=replace(workspace.artifacts))


def outcome(report: StageReport, partition: Partition) -> tuple[str, str]:
    """Status and detail of a partition."""
    (found,) = [o for o in report.outcomes if o.partition == partition]
    return found.status.value, found.detail


_TABLES = {
    "cmc_features": "SELECT a.symbol, t.* FROM cmc_features t JOIN dim_assets a USING (id)",
    "cmc_ema_multi_tf_u": (
        "SELECT a.symbol, t.* FROM cmc_ema_multi_tf_u t JOIN dim_assets a USING (id)"
    ),
    "signals": (
        "SELECT a.symbol, t.*, (t.feature_snapshot - 'id')::text AS snapshot"
        " FROM signals t JOIN dim_assets a USING (id)"
    ),
    "signal_state": "SELECT a.symbol, t.* FROM signal_state t JOIN dim_assets a USING (id)",
    "dataset_versions": (
        "SELECT a.symbol, t.* FROM dataset_versions t JOIN dim_assets a USING (id)"
    ),
    "data_quality": "SELECT a.symbol, t.* FROM data_quality t JOIN dim_assets a USING (id)",
    "backtest_runs": (
        "SELECT t.*, t.config::text AS config_text, t.results::text AS results_text"
        " FROM backtest_runs t WHERE is_current"
    ),
    "backtest_trades": (
        "SELECT t.* FROM backtest_trades t JOIN backtest_runs r USING (run_id) WHERE r.is_current"
    ),
    "backtest_metrics": (
        "SELECT t.*, t.undefined::text AS why FROM backtest_metrics t"
        " JOIN backtest_runs r USING (run_id) WHERE r.is_current"
    ),
}
# When it was written, by which number the store knows the asset, and where the history of
# writing shows: the content must be the same all the same.
_PASSING = {
    *("id", "updated_at", "created_at", "started_at", "completed_at", "deflated_at"),
    "read_at",
    *("artifact_uri", "uris"),
    *("generation", "feature_snapshot", "config", "results", "params", "undefined"),
    *("series_id", "dataset_version_ids"),
}

Contents = dict[str, pd.DataFrame]


def contents(workspace: Workspace, partitions: Sequence[Partition] | None = None) -> Contents:
    """All that a store holds of these partitions (or of all), without when it was written."""
    found = {}
    with workspace.database.begin() as connection:
        connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        for table, query in _TABLES.items():
            rows = connection.execute(sa.text(query))
            frame = pd.DataFrame(rows.mappings().all(), columns=pd.Index(list(rows.keys())))
            found[table] = frame
    uris = found["backtest_runs"][["run_id", "artifact_uri", "symbol", "tf"]]
    if partitions is not None:
        for table, frame in found.items():
            if {"symbol", "tf"} <= {*frame}:
                keys = list(zip(frame["symbol"], frame["tf"], strict=True))
                found[table] = frame[[key in partitions for key in keys]]
        uris = found["backtest_runs"][["run_id", "artifact_uri", "symbol", "tf"]]
        for table in ("backtest_trades", "backtest_metrics"):
            found[table] = found[table][found[table]["run_id"].isin(uris["run_id"])]
    for file in ("equity.parquet", "monthly_returns.parquet"):
        found[file] = _file(workspace, uris, file)
    found["benchmark.parquet"] = _benchmarks(workspace, uris)
    return {table: _canonical(frame) for table, frame in found.items()}


def _file(workspace: Workspace, uris: pd.DataFrame, file: str) -> pd.DataFrame:
    tables = [
        workspace.artifacts.read_table(
            str(uri), file, filters=[("run_id", "in", [str(r) for r in runs["run_id"]])]
        )
        for uri, runs in uris.groupby("artifact_uri")
    ]
    if not tables:
        return pd.DataFrame()
    frame = pa.concat_tables(tables).to_pandas()
    frame["run_id"] = frame["run_id"].astype(str)
    return frame


def _benchmarks(workspace: Workspace, uris: pd.DataFrame) -> pd.DataFrame:
    frames = [
        workspace.artifacts.read_table(
            str(uri), "benchmark.parquet", filters=[("asset", "in", list(runs["symbol"]))]
        )
        .to_pandas()
        .assign(symbol=lambda frame: frame.pop("asset").astype(str), tf=runs["tf"].iloc[0])
        for uri, runs in uris.groupby("artifact_uri")
    ]
    return pd.concat(frames) if frames else pd.DataFrame()


def _canonical(frame: pd.DataFrame) -> pd.DataFrame:
    kept = frame.drop(columns=[name for name in frame if name in _PASSING])
    keys = ("run_id", "symbol", "tf", "ts", "month", "signal_id", "direction", "action")
    keys += ("period", "dataset", "reason", "trade_no")
    return kept.sort_values(by=[key for key in keys if key in kept.columns]).reset_index(drop=True)


def assert_same(one: Contents, other: Contents) -> None:
    """Both stores hold the same, to the last bit."""
    for table in one:
        assert len(one[table]) == len(other[table]), f"rows of {table}"
        pd.testing.assert_frame_equal(one[table], other[table], check_exact=True, obj=table)
