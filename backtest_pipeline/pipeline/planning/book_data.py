"""What is stored of a book's symbols: features by timeframe, and what they were made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.stages.features import SNAPSHOT_COLUMNS, load_batch
from backtest_pipeline.pipeline.stages.panels import PanelBatch
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.plan_tables.plan_books import PlanBook
from backtest_pipeline.storage.tables.datasets import DatasetVersion


@dataclass(frozen=True)
class BookData:
    """The stored features of a book's symbols.

    Attributes:
        batches: by timeframe, the symbols in alphabetical order; one without bars has no rows.
    """

    batches: Mapping[str, PanelBatch]

    @property
    def panels(self) -> dict[str, Panel]:
        """Bars and features by timeframe."""
        return {tf: batch.panel for tf, batch in self.batches.items()}

    @property
    def versions(self) -> dict[str, DatasetVersion]:
        """Each dataset with rows, by partition."""
        return {
            str(Partition(asset, tf)): batch.inputs[asset]
            for tf, batch in self.batches.items()
            for asset, n in zip(batch.panel.assets, batch.panel.lengths.tolist(), strict=True)
            if n
        }

    def with_rows(self, tf: str) -> PanelBatch:
        """The batch of a timeframe with the symbols that have bars there."""
        batch = self.batches[tf]
        lengths = zip(batch.panel.assets, batch.panel.lengths.tolist(), strict=True)
        held = [asset for asset, n in lengths if n]
        return PanelBatch(batch.panel.select(held), {asset: batch.inputs[asset] for asset in held})

    @property
    def without_bars(self) -> list[str]:
        """The timeframes at which no symbol has a bar."""
        return [tf for tf, panel in self.panels.items() if not len(panel)]

    @property
    def newest_us(self) -> int | None:
        """Close of the newest bar of any symbol, microseconds; None where there is none."""
        stamps = [int(panel.ts.max()) for panel in self.panels.values() if len(panel)]
        return max(stamps, default=None)


def load_book(workspace: Workspace, book: PlanBook) -> BookData:
    """The stored features of a book, as far as triggers and strategists read them."""
    return BookData(
        {
            tf: load_batch(workspace, "features", tf, book.symbols, SNAPSHOT_COLUMNS)
            for tf in book.timeframes
        }
    )
