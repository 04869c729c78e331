"""Parameter sweeps: backtest every combination, rank them, and deflate the best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backtest_pipeline.market.errors import InvalidInput, NotEnoughBars, UnknownName
from backtest_pipeline.market.features import build_features
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.look_ahead_guard import ends_of, require_probed
from backtest_pipeline.pipeline.ranking.ledger import enter_in_ledger
from backtest_pipeline.pipeline.runs.identity import RunTerms, Window
from backtest_pipeline.pipeline.runs.own_columns import own_columns_read
from backtest_pipeline.pipeline.stage import Progress, silent
from backtest_pipeline.pipeline.stages.bars import BAR_COLUMNS
from backtest_pipeline.pipeline.stages.batch_files import BatchFiles
from backtest_pipeline.pipeline.stages.benchmark_assets import rows_in
from backtest_pipeline.pipeline.stages.tradable_signals import FEWEST_BARS
from backtest_pipeline.pipeline.use_cases.sweep_parts import Sweeping, joined, swept_parts
from backtest_pipeline.pipeline.use_cases.traded import too_few_bars
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.report.sweep_figure import sweep_figure
from backtest_pipeline.report.sweep_page import Subject, exploration_page, parameters
from backtest_pipeline.research.robustness.neighbourhood import (
    Neighbourhood,
    best_first,
    neighbourhood,
)
from backtest_pipeline.research.validation.selection import Selection, selection
from backtest_pipeline.simulation.config import Direction, SimulationConfig
from backtest_pipeline.simulation.funding import FundingRates
from backtest_pipeline.simulation.metrics.metrics import METRIC_NAMES, METRICS
from backtest_pipeline.simulation.pandas_objects.frames import bars_panel, daily_panel
from backtest_pipeline.simulation.sweep import metrics_table
from backtest_pipeline.storage.provenance import combined, content_versions
from backtest_pipeline.strategies.grid import parameter_grid
from backtest_pipeline.strategies.registry import strategy_of

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MOST_COMBINATIONS = 20_000


@dataclass(frozen=True)
class Exploration:
    """The result of a sweep of a strategy's parameters.

    Attributes:
        table: one row per combination, indexed by the parameters, one column per metric of
            docs/metrics.md; NaN where undefined.
        metric: the metric by which combinations are ranked.
        swept: parameters with more than one value.
        left_out: number of invalid combinations, such as a fast period above the slow one.
        surroundings: the best combination and its neighbours.
        subject: what was swept, on which bars.
        selection: significance of the best combination, corrected for all that were tried.
    """

    table: pd.DataFrame
    metric: str
    swept: tuple[str, ...]
    left_out: int
    surroundings: Neighbourhood
    subject: Subject
    selection: Selection

    @property
    def ranked(self) -> pd.DataFrame:
        """The combinations with a defined metric, best first."""
        return self.table.iloc[best_first(pd.Series(self.table[self.metric]))]

    @property
    def best(self) -> dict[str, Any]:
        """The parameters of the best combination."""
        return parameters(self.table, self.surroundings.best)

    @property
    def warning(self) -> str:
        """The warning that the best of a sweep is not evidence."""
        return (
            f"{len(self.table):,} combinations were tried on the same bars. The best of so many "
            "looks good by luck alone and is not evidence: test it out of sample."
        )

    def figure(self) -> Figure:
        """The heat map and the curves as an interactive Plotly figure."""
        return sweep_figure(self.table, self.metric, self.swept, self.surroundings)

    def write_html(self, path: str | Path) -> Path:
        """Write a self-contained HTML page with the figure, the ranking and the warning.

        Raises:
            InvalidInput: where the file cannot be written.
        """
        page = exploration_page(
            self.subject,
            self.figure(),
            self.table,
            self.metric,
            self.surroundings,
            self.warning,
            self.left_out,
            self.selection,
        )
        path = Path(path)
        try:
            path.write_text(page, encoding="utf-8")
        except OSError as error:
            raise InvalidInput(f"cannot write {path}: {error.strerror}") from error
        return path


def explore(
    bars: pd.DataFrame,
    strategy: str,
    params: Mapping[str, Any] | None = None,
    *,
    metric: str = "sharpe",
    start: date | None = None,
    end: date | None = None,
    direction: str = "both",
    funding: FundingRates | None = None,
    daily: pd.DataFrame | None = None,
    timeframe: str | None = None,
    asset: str = "asset",
    max_combinations: int = MOST_COMBINATIONS,
    workspace: Workspace | None = None,
    progress: Progress = silent,
    **assumptions: Any,
) -> Exploration:
    """Backtest every combination of a strategy's parameters on one asset.

    Each row equals what `run_backtest` returns for those parameters, bit for bit.

    Args:
        bars: columns open, high, low, close, volume; tz-aware, strictly increasing index.
        strategy: name of the strategy; its first word is enough.
        params: a number or a sequence of numbers by parameter; by default the strategy's own
            search range.
        metric: a metric of docs/metrics.md.
        start, end: UTC dates, half-open; indicators also use the bars before `start`.
        direction: `long`, `short` or `both`.
        funding: funding rates of the asset, in place of the flat rate.
        daily: daily bars to mark equity by, as in `simulate`.
        timeframe: name of the bars' timeframe; by default inferred from their spacing.
        asset: its name, on the page and in `funding`.
        max_combinations: a larger sweep is refused.
        workspace: an open store; every combination is entered in its trial ledger. Without one
            no trial is recorded, and later runs are deflated by too few.
        progress: called with the number of combinations done.
        assumptions: costs, sizing, stops and other fields of `SimulationConfig`.

    Raises:
        UnknownName: for an unknown strategy, parameter, metric or direction.
        InvalidInput: for invalid bars, window or values, too many combinations, or a metric that
            is undefined for all of them.
        LooksAhead: for a strategy whose signals use later bars.

    Examples:
        >>> from backtest_pipeline import explore, load_bars
        >>> bars = load_bars(asset="S-ALPHA")
        >>> sweep = explore(bars, "ema_crossover", {"fast": [5, 10], "slow": [20, 50]})
        >>> len(sweep.table)
        4
    """
    config = SimulationConfig(direction=Direction.of(direction), **assumptions)
    return sweep(
        build_features(bars_panel(bars, timeframe, asset)),
        strategy,
        params or {},
        RunTerms(config, Window(start, end), funding=funding),
        daily=daily_panel(daily, asset),
        metric=metric,
        max_combinations=max_combinations,
        workspace=workspace,
        progress=progress,
    )


def sweep(
    panel: Panel,
    strategy: str,
    params: Mapping[str, Any],
    terms: RunTerms,
    *,
    daily: Panel | None,
    metric: str,
    max_combinations: int,
    workspace: Workspace | None,
    progress: Progress,
    files: BatchFiles | None = None,
) -> Exploration:
    """Backtest every combination of a strategy's parameters on the features of one asset.

    Args:
        panel: features of one asset.
        strategy, params, metric, max_combinations: as in `explore`.
        terms: costs, window and the other terms of the runs.
        daily: daily bars to mark equity by, if any.
        workspace: the open store in whose ledger every combination is entered, if any.
        progress: called with the number of combinations done.
        files: of the panel, where it was read from that store: workers of its pool read them.

    Raises:
        UnknownName, InvalidInput, LooksAhead: as `explore`.
    """
    definition = strategy_of(strategy)
    require_metric(metric)
    config, window, funding = terms.config, terms.window, terms.funding
    (asset,) = panel.assets
    grid = parameter_grid(definition, params, max_combinations)
    keep = rows_in(panel, window)
    if keep.sum() < FEWEST_BARS:
        partition = Partition(asset, panel.timeframe.name)
        raise NotEnoughBars(too_few_bars(panel, partition, window, int(keep.sum())))

    if not grid.swept:
        raise InvalidInput(
            f"{definition.name}: one combination is a backtest, not a sweep; give at least one "
            "parameter more than one value"
        )
    axes = dict(zip(grid.names, zip(*grid.combinations, strict=True), strict=True))
    require_probed(workspace, definition, ends_of(definition, axes), panel)

    def listen(done: int, total: int) -> None:
        progress("explore", done, total)

    bars = content_versions(panel, [n for n in BAR_COLUMNS if n in panel.columns]).whole
    read = [n for n in own_columns_read(definition, axes, config) if n in panel.columns]
    versions = bars
    if read:
        of_columns = content_versions(panel, read).whole
        versions = {a: combined(version, of_columns[a]) for a, version in bars.items()}
    sweeping = Sweeping(len(grid), terms, daily, metric, versions if workspace else None)
    parts = swept_parts(panel, grid, sweeping, workspace, files, listen)
    if workspace:
        trials = [part.trials for part in parts if part.trials is not None]
        enter_in_ledger(workspace, trials)
    table = metrics_table(grid, [part.metrics for part in parts])
    if not np.isfinite(table[metric].to_numpy()).any():
        (reason,) = (m.undefined for m in METRICS if m.name == metric)
        raise InvalidInput(
            f"{metric} is undefined for all {len(table):,} combinations ({reason}); use more bars, "
            "other parameter values or another metric"
        )
    surroundings = neighbourhood(pd.Series(table[metric]))
    days = panel.ts[keep][[0, -1]].view("M8[us]").astype("M8[D]").astype(date)
    return Exploration(
        table=table,
        metric=metric,
        swept=grid.swept,
        left_out=grid.left_out,
        surroundings=surroundings,
        subject=Subject(
            strategy=definition.name,
            asset=asset,
            timeframe=panel.timeframe.name,
            n_bars=int(keep.sum()),
            first=days[0],
            last=days[1],
            settings=_settings(config, funding),
        ),
        selection=selection(
            joined(parts, surroundings.best, len(table)),
            len(table),
            risk_free=config.risk_free,
        ),
    )


def require_metric(name: str) -> None:
    """Raise UnknownName unless `name` is a metric."""
    if name not in METRIC_NAMES:
        raise UnknownName("metric", name, METRIC_NAMES)


def _settings(config: SimulationConfig, funding: FundingRates | None) -> str:
    """Direction and costs, and every other setting that is not at its default, in words."""
    costs, usual = config.costs, SimulationConfig()
    settings = [
        f"direction {config.direction}",
        f"fee {costs.fee_bps:g} and slippage {costs.slippage_bps:g} basis points a side",
    ]
    if funding:
        settings.append("funding at the given rates")
    elif costs.funding_bps_day:
        settings.append(f"funding {costs.funding_bps_day:g} basis points a day")
    settings += [
        f"{field.name} {_in_words(getattr(config, field.name))}"
        for field in fields(config)
        if field.name not in ("direction", "costs")
        and getattr(config, field.name) != getattr(usual, field.name)
    ]
    return ", ".join(settings)


def _in_words(value: Any) -> str:
    if not is_dataclass(value):
        return str(value)
    given = {field.name: getattr(value, field.name) for field in fields(value)}
    words = ", ".join(
        f"{name} {v if isinstance(v, str) else f'{v:g}'}"
        for name, v in given.items()
        if v is not None
    )
    return f"({words})"
