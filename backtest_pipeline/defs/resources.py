"""Resources: the open store, the source of bars, and how runs are simulated."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from pydantic import Field, PrivateAttr

from backtest_pipeline.pipeline.workspace import Workspace, open_workspace
from backtest_pipeline.simulation.config import Direction, SimulationConfig
from backtest_pipeline.simulation.costs import CostModel
from backtest_pipeline.simulation.sizing import FixedFractional
from backtest_pipeline.sources.base import BarSource
from backtest_pipeline.sources.choose import choose_source
from backtest_pipeline.storage.settings import load_settings


class WorkspaceResource(dg.ConfigurableResource):
    """The store that the environment names; secrets stay in the environment."""

    _workspace: Workspace = PrivateAttr()

    def progress(self, stage: str, done: int, total: int) -> None:
        """Told how far the stages are; does nothing unless a subclass listens.

        A method, for Dagster makes each resource anew from its class and its fields.
        """

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["WorkspaceResource"]:
        with open_workspace(progress=self.progress) as workspace:
            self._workspace = workspace
            yield self

    @property
    def workspace(self) -> Workspace:
        return self._workspace


class SourceResource(dg.ConfigurableResource):
    """Where bars come from: files where a path is given, else the synthetic sample market."""

    path: str = Field(
        default="",
        description="file or folder of bars; empty: BACKTEST_BARS, else the sample market",
    )

    def source(self) -> BarSource:
        return choose_source(self.path or load_settings().bars)


class SimulationResource(dg.ConfigurableResource):
    """Costs, sizing and direction of the stored backtests."""

    fee_bps: float = 10.0
    slippage_bps: float = 5.0
    fraction: float = 1.0
    direction: str = Direction.BOTH.value
    initial_cash: float = 10_000.0

    def config(self) -> SimulationConfig:
        return SimulationConfig(
            costs=CostModel(self.fee_bps, self.slippage_bps),
            sizing=FixedFractional(self.fraction),
            direction=Direction(self.direction),
            initial_cash=self.initial_cash,
        )
