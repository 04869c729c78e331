"""How a command opens the store, and the source that its bars come from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from backtest_pipeline.cli.console import progress_shown

if TYPE_CHECKING:
    from backtest_pipeline.cli.progress import Listener
    from backtest_pipeline.pipeline.external import ExternalReader
    from backtest_pipeline.pipeline.workspace import Workspace
    from backtest_pipeline.sources.base import BarSource


@contextmanager
def open_store() -> Iterator[Workspace]:
    """The open store, migrated, that shows its progress."""
    with progress_shown() as progress:
        progress("loading", 0, 1)
        from backtest_pipeline.cli.serving import ensure_schema
        from backtest_pipeline.pipeline.workspace import open_workspace
        from backtest_pipeline.storage.settings import load_settings

        settings = load_settings()
        ensure_schema(settings)
        with open_workspace(settings, progress=progress) as workspace:
            progress("loading", 1, 1)
            yield workspace


@contextmanager
def store_and_source(
    asset: str, bars: str, progress: Listener, benchmark: str = "asset"
) -> Iterator[tuple[Workspace, BarSource | ExternalReader]]:
    """The open store, and the source of the asset's bars or features, and of its benchmark's."""
    from backtest_pipeline.cli.serving import ensure_schema
    from backtest_pipeline.pipeline.comparison import NOT_ASSETS
    from backtest_pipeline.pipeline.external import ExternalReader
    from backtest_pipeline.pipeline.workspace import open_workspace
    from backtest_pipeline.sources.base import require_known
    from backtest_pipeline.sources.choose import choose_source
    from backtest_pipeline.storage.settings import exchange_access, load_settings

    settings = load_settings()
    named = [asset] if benchmark in NOT_ASSETS else [asset, benchmark]
    source = choose_source(settings.bars_of(bars), exchange_access, named)
    if bars:  # of another source might be stored what this one does not have
        require_known([asset], source.symbols())
    ensure_schema(settings)
    with open_workspace(settings, progress=progress) as workspace:
        progress("loading", 1, 1)
        yield workspace, source if workspace.external is None else ExternalReader(workspace)
