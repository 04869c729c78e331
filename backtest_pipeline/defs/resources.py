"""Resources: the open store, the source of bars, and how runs are simulated."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import dagster as dg
from pydantic import Field, PrivateAttr

from backtest_pipeline.pipeline.folds import Plan
from backtest_pipeline.pipeline.workspace import Workspace, open_workspace
from backtest_pipeline.research.optimizer import Objective, Search, method_of
from backtest_pipeline.research.schedule import Schedule
from backtest_pipeline.research.splits import mode_of
from backtest_pipeline.simulation.assumptions import sizing_of, stops_of
from backtest_pipeline.simulation.config import Direction, SimulationConfig
from backtest_pipeline.simulation.costs import CostModel
from backtest_pipeline.sources.base import BarSource
from backtest_pipeline.sources.choose import choose_source
from backtest_pipeline.storage.settings import exchange_access, load_settings


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
    """Where bars come from: an exchange, files, or the synthetic sample market."""

    path: str = Field(
        default="",
        description="file or folder of bars, or binance:1h; empty: BACKTEST_BARS, else the "
        "sample market",
    )

    def source(self, named: Sequence[str] = ()) -> BarSource:
        """The source; of an exchange also the assets that are wanted by name."""
        return choose_source(self.path or load_settings().bars, exchange_access, named)


class SimulationResource(dg.ConfigurableResource):
    """Costs, sizing, stops and direction of the stored backtests; docs/simulation.md."""

    fee_bps: float = 10.0
    slippage_bps: float = 5.0
    funding_bps_day: float = 0.0
    sizing: str = Field(
        default="fixed",
        description="fixed[:fraction=], equal:n_assets=, volatility:target=,lookback= or "
        "atr:risk=,atr_multiple=,atr_period=",
    )
    stops: str = Field(
        default="",
        description="stop_loss=, take_profit=, trailing=, trailing_atr=, atr_period=, max_bars=",
    )
    direction: str = Direction.BOTH.value
    initial_cash: float = 10_000.0
    max_leverage: float = 1.0
    lot_size: float = 0.0
    min_notional: float = 0.0

    def config(self) -> SimulationConfig:
        return SimulationConfig(
            costs=CostModel(self.fee_bps, self.slippage_bps, self.funding_bps_day),
            sizing=sizing_of(self.sizing),
            stops=stops_of(self.stops),
            direction=Direction.of(self.direction),
            initial_cash=self.initial_cash,
            max_leverage=self.max_leverage,
            lot_size=self.lot_size,
            min_notional=self.min_notional,
        )


class WalkForwardResource(dg.ConfigurableResource):
    """Windows, objective and search of the stored walk-forwards; docs/walk-forward.md."""

    train: float = Field(default=365.0, description="days of a training window")
    test: float = Field(default=90.0, description="days of a test window")
    mode: str = Field(default="rolling", description="rolling, expanding or anchored")
    purge: int = Field(default=0, description="bars left out before each test")
    embargo: float = Field(default=0.01, description="share of a window left out besides")
    objective: str = Field(
        default="sharpe", description="a metric, composite, or weights: sharpe=1,calmar=0.5"
    )
    search: str = Field(default="auto", description="auto, grid, random or tpe")
    seed: int = 0

    def plan(self) -> Plan:
        settings = load_settings()
        return Plan(
            Schedule(self.train, self.test, mode_of(self.mode), self.purge, self.embargo),
            Search(method_of(self.search), settings.optimizer_max_combinations, self.seed),
            Objective.of(self.objective),
            settings.wfo_threshold,
        )
