"""Where the bars or features of a spec come from."""

from __future__ import annotations

from collections.abc import Sequence

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.pipeline.specs import PortfolioSpec, RobustnessSpec, StrategySpec
from backtest_pipeline.pipeline.stages.benchmark_assets import NOT_ASSETS
from backtest_pipeline.pipeline.stages.external.external_reader import ExternalReader
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.sources.base import BarSource, require_known
from backtest_pipeline.sources.choose import choose_source
from backtest_pipeline.storage.settings import Settings, exchange_access

_MINUTES = {"1m", "5m", "15m", "30m"}
Source = BarSource | ExternalReader


def source_for(
    workspace: Workspace,
    settings: Settings,
    spec: StrategySpec | RobustnessSpec,
    bars: str = "",
) -> Source:
    """The source of the bars or features of a spec.

    Raises:
        UnknownName: for a symbol missing from `bars`, even if another source has stored it.
        InvalidInput: for both `bars` and an exchange.
    """
    symbols = spec.symbols if isinstance(spec, PortfolioSpec) else [spec.symbol]
    benchmark = getattr(spec, "benchmark", "asset")
    named = symbols if benchmark in NOT_ASSETS else [*symbols, benchmark]
    if bars and spec.exchange:
        raise InvalidInput("both bars and exchange are given: leave out one of them")
    chosen = settings.model_copy(update={"use_cache": settings.use_cache and spec.use_cache})
    named_bars = bars or _exchange_bars(spec.exchange, spec.timeframe)
    source = source_of(workspace, chosen, named_bars, symbols=named)
    if bars:
        require_known(symbols, source.symbols())
    return source


def source_of(
    workspace: Workspace, settings: Settings, bars: str = "", *, symbols: Sequence[str]
) -> Source:
    """The source named by `bars`, by default the store's own.

    Args:
        workspace: the open store.
        settings: settings of this process.
        bars: file, folder or exchange such as `binance:1h`; empty for the configured source.
        symbols: symbols requested by name; only an exchange uses them.

    Raises:
        ConfigurationError: for `bars` where features come from an external table.
    """
    chosen = settings.bars_of(bars)
    if workspace.external is not None:
        return ExternalReader(workspace)
    return choose_source(chosen, lambda: exchange_access(settings), symbols)


def _exchange_bars(exchange: str, tf: str) -> str:
    """The exchange with the longest interval that the timeframe can be resampled from."""
    if not exchange:
        return ""
    bars = timeframe(tf)
    if bars.name in _MINUTES:
        return f"{exchange}:{bars.name}"
    return f"{exchange}:{'1h' if bars.is_intraday else '1d'}"
