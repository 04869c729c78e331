"""Case `portfolio`: five weighting schemes over many curves, and the rollups of the universe."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import DAY_US
from backtest_pipeline.pipeline.stages.portfolios import RollupConfig
from backtest_pipeline.pipeline.stages.rollups import roll_up
from backtest_pipeline.pipeline.use_cases.refresh import refresh_backtests, refresh_signals
from backtest_pipeline.pipeline.workspace import Workspace, open_workspace
from backtest_pipeline.research.portfolio.portfolio import PortfolioRules, form_portfolio
from backtest_pipeline.research.portfolio.weights import SCHEMES
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.sources.files import FileBars
from bench.bars import daily_bars, write_bars
from bench.clock import Clock, Seconds
from bench.harness import Report, Table
from bench.sampling import sampled
from bench.store import fresh_store
from bench.universe import TIMEFRAMES

_MOST_SHOWN = 5
_FIRST_DAY = 18_000


def run(*, quick: bool) -> Report:
    """Measure it."""
    n_assets, n_days = (8, 200) if quick else (149, 5 * 365)
    bars, origin = daily_bars(quick=quick)
    with fresh_store() as settings:
        path = settings.home / "bars.parquet"
        write_bars(bars, path)
        clock = Clock(settings.home)
        with open_workspace() as workspace:
            _fill(workspace, path)
            for tf in TIMEFRAMES:  # imports and compiles
                roll_up(workspace, tf, RollupConfig(rebalance="quarterly"))
            rollups = [
                _rollups_table(workspace, clock, rebalance) for rebalance in ("monthly", "weekly")
            ]
            profile = _profile_table(workspace)
    return Report(
        "Portfolios",
        f"Forming portfolios of {n_assets} random daily curves of {n_days} days that share a "
        f"factor, look-back 90; then the rollups of {len(bars['symbol'].unique())} symbols "
        f"({origin}) at {', '.join(TIMEFRAMES)}: six strategies and all together, stored.",
        [_forming_table(n_assets, n_days), *rollups, profile],
    )


def _forming_table(n_assets: int, n_days: int) -> Table:
    random = np.random.default_rng(7)
    market = random.normal(0, 0.02, n_days) * random.uniform(0.2, 1.5, (n_assets, 1))
    own = random.normal(0, 0.03, (n_assets, n_days)) * random.uniform(0.2, 2.0, (n_assets, 1))
    curves = np.exp(np.cumsum(market + own, axis=1))
    ts = np.arange(_FIRST_DAY, _FIRST_DAY + n_days) * DAY_US
    clock = Clock()
    rows: list[list[str | float | int]] = []
    for scheme in SCHEMES:
        for rebalance in ("weekly", "monthly"):
            rules = PortfolioRules(scheme, rebalance)
            with threadpool_limits(1, user_api="blas"):  # as the rollups do
                begin = clock.now()
                portfolio = form_portfolio(curves, ts, 1.0, 0.0015, rules)
                taken, n = clock.now() - begin, len(portfolio.rebalance_rows)
            rows.append([scheme, rebalance, n, taken.wall, taken.cpu, 1000 * taken.wall / n])
    columns = ["scheme", "schedule", "rebalances", "wall s", "CPU s", "ms a rebalance"]
    return Table("One portfolio", columns, rows)


def _fill(workspace: Workspace, path: Path) -> None:
    source = FileBars(path)
    partitions = [Partition(asset, tf) for asset in source.symbols() for tf in TIMEFRAMES]
    for report in refresh_signals(workspace, source, partitions):
        assert not report.failed, report.failed[0]
    assert not refresh_backtests(workspace, partitions, SimulationConfig()).failed


def _rollups_table(workspace: Workspace, clock: Clock, rebalance: str) -> Table:
    taken: dict[str, Seconds] = {}
    n_portfolios: dict[str, int] = {}
    for schemes in (*((scheme,) for scheme in SCHEMES), tuple(SCHEMES), tuple(SCHEMES)):
        name = schemes[0] if len(schemes) == 1 else "all five"
        if name in taken:
            name = "all five again, nothing changed"
        config = RollupConfig(schemes=schemes, rebalance=rebalance)
        with clock.timing(taken, name):
            n_portfolios[name] = sum(roll_up(workspace, tf, config) for tf in TIMEFRAMES)
    rows: list[list[str | float | int]] = [
        [name, n_portfolios[name], t.wall, t.cpu, t.own, t.server] for name, t in taken.items()
    ]
    columns = ["schemes", "portfolios", "wall s", "CPU s", "of it own", "of it server"]
    return Table(f"Rollups, {rebalance}", columns, rows)


def _profile_table(workspace: Workspace) -> Table:
    samples: Counter[str] = Counter()
    with sampled(samples):
        for tf in TIMEFRAMES:
            # Another look-back, so that none of it is stored.
            roll_up(workspace, tf, RollupConfig(lookback=91))
    total = max(samples.total(), 1)
    rows: list[list[str | float | int]] = [
        [f"`{name}`", f"{count / total:.0%}"] for name, count in samples.most_common(_MOST_SHOWN)
    ]
    columns = ["function (waits included)", "share of the time"]
    return Table("Where the time goes: all five, monthly", columns, rows)
