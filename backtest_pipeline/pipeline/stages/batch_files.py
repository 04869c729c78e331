"""The files that a batch was read from, by which another process reads the very same rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from backtest_pipeline.pipeline.runs.own_columns import StoredColumns
from backtest_pipeline.pipeline.stages.columns.stored_columns import own_columns_from
from backtest_pipeline.pipeline.stages.features import SNAPSHOT_COLUMNS
from backtest_pipeline.pipeline.stages.panels import PanelBatch
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.artifacts.panel_files import read_panel
from backtest_pipeline.storage.tables.datasets import DatasetVersion


@dataclass(frozen=True)
class BatchFiles:
    """A stored batch without its rows, small enough to be sent.

    Attributes:
        timeframe, assets: the partitions, in the order of the rows.
        inputs: the stored version of each asset's rows, which names its files.
        own: the same of columns of the user's own, by dataset.
    """

    timeframe: str
    assets: tuple[str, ...]
    inputs: Mapping[str, DatasetVersion]
    own: Mapping[str, StoredColumns]

    @staticmethod
    def of(batch: PanelBatch) -> BatchFiles:
        """Those of a batch that was read from the store."""
        panel = batch.panel
        return BatchFiles(panel.timeframe.name, panel.assets, batch.inputs, batch.own.sets)

    def read(self, workspace: Workspace, columns: Sequence[str] = SNAPSHOT_COLUMNS) -> PanelBatch:
        """The batch, whatever has been stored since.

        Args:
            workspace: the open store.
            columns: those of the batch, of features by default.

        Raises:
            ArtifactError: where files were removed meanwhile, or are damaged.
        """
        uris = {a: self.inputs[a].uris if a in self.inputs else () for a in self.assets}
        panel = read_panel(workspace.artifacts, self.timeframe, uris, columns)
        batch = PanelBatch(panel, self.inputs)
        return own_columns_from(workspace, batch, self.own) if self.own else batch
