"""The universe of a cross-section: which assets, and what is stored of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from backtest_pipeline.market.cross_section import is_rank
from backtest_pipeline.market.errors import BadSymbols, NoFeatures, UnknownColumn
from backtest_pipeline.market.features import is_given_by_bars
from backtest_pipeline.market.panel import OHLCV
from backtest_pipeline.pipeline.stages.features import SNAPSHOT_COLUMNS, load_batch
from backtest_pipeline.pipeline.stages.panels import PanelBatch
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.sources.base import require_known
from backtest_pipeline.storage.tables.datasets import all_partitions
from backtest_pipeline.storage.tables.dimensions import synthetic_among
from backtest_pipeline.strategies.cross_section.definition import CrossSection
from backtest_pipeline.strategies.rules.ranks import RankedColumns


def universe_at(workspace: Workspace, tf: str, symbols: Sequence[str] = ()) -> list[str]:
    """The symbols with stored features at a timeframe, sorted; those given, where any are.

    Synthetic assets are left out unless they are given, or there are no others.

    Raises:
        UnknownName: for a symbol that the store does not have.
        BadSymbols: for a symbol that is given twice.
        NoFeatures: where fewer than two have features.
    """
    with workspace.database.begin() as connection:
        known = [p.asset for p in all_partitions(connection, "features") if p.timeframe == tf]
        synthetic = synthetic_among(connection, known)
    if len(set(symbols)) < len(symbols):
        twice = next(s for s in symbols if symbols.count(s) > 1)
        raise BadSymbols(f"a universe has each symbol once, but {twice} is given more than once")
    if symbols:
        require_known(symbols, known)
        return sorted(symbols)
    found = sorted(set(known) - set(synthetic)) or sorted(known)
    if len(found) < 2:
        raise NoFeatures(
            f"a cross-section at {tf} ranks at least two assets, and {len(found) or 'none'} "
            f"{'has' if len(found) == 1 else 'have'} features there; refresh cmc_features first"
        )
    return found


def columns_read(rule: CrossSection) -> tuple[str, ...]:
    """The stored columns that a strategy is computed from: those of bars, and features.

    Raises:
        UnknownColumn: for a column of the user's own.
    """
    names = set(rule.reads)
    ranked = {name for name in names if is_rank(name)}
    names = (names - ranked) | {*RankedColumns(sorted(ranked)).reads}
    own = sorted(name for name in names if not is_given_by_bars(name))
    if own:
        raise UnknownColumn(
            f"{rule.name}: {', '.join(own)} is no feature of docs/features.md; a cross-section "
            "cannot read columns of your own"
        )
    return tuple(name for name in SNAPSHOT_COLUMNS if name in OHLCV or name in names)


def load_universe(
    workspace: Workspace, rule: CrossSection, tf: str, symbols: Collection[str]
) -> PanelBatch:
    """The stored features of a universe, as far as a strategy reads them; sorted by symbol.

    Raises:
        NoFeatures: for a symbol without features.
    """
    batch = load_batch(workspace, "features", tf, sorted(symbols), columns_read(rule))
    lacking = [symbol for symbol in batch.panel.assets if symbol not in batch.inputs]
    if lacking:
        raise NoFeatures(
            f"{', '.join(lacking)}: no features are stored at {tf}; refresh cmc_features first"
        )
    return batch
