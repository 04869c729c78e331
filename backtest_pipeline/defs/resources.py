"""Resources: the workspace (database and artifacts), the bar source, and the simulation options."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field, PrivateAttr

from backtest_pipeline.defs.processes.leased_runs import watched
from backtest_pipeline.pipeline.spec_options import options_of, spec_from
from backtest_pipeline.pipeline.specs import (
    RunSpec,
    SimulationSpec,
    SpecModel,
    WalkForwardSpec,
)
from backtest_pipeline.pipeline.stages.walk_forward.folds import WalkForwardPlan
from backtest_pipeline.pipeline.use_cases.spec_terms import plan_of
from backtest_pipeline.pipeline.workspace import Workspace, open_workspace
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.sources.base import BarSource
from backtest_pipeline.sources.choose import choose_source
from backtest_pipeline.storage.settings import exchange_access, load_settings


class WorkspaceResource(dg.ConfigurableResource):
    """The workspace that the BACKTEST_* variables configure; secrets stay in the environment."""

    _workspace: Workspace = PrivateAttr()

    def progress(self, stage: str, done: int, total: int) -> None:
        """Report a stage's progress; does nothing unless a subclass overrides it.

        A method and not a field, because Dagster rebuilds a resource from its class and its fields.
        """

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["WorkspaceResource"]:
        settings = load_settings()
        # A run has begun: an outage now is one in its middle.
        with open_workspace(
            settings, progress=self.progress, retry_s=settings.store_retry_s
        ) as workspace:
            self._workspace = workspace
            with watched(workspace.database, context.run) if context.run else nullcontext():
                yield self

    @property
    def workspace(self) -> Workspace:
        return self._workspace


class SourceResource(dg.ConfigurableResource):
    """Where bars are read from: an exchange, files, or the synthetic sample market."""

    path: str = Field(
        default="",
        description="file or folder of bars, or an exchange such as binance:1h; if empty, "
        "BACKTEST_BARS is used, and without that the synthetic sample market",
    )

    def source(self, named: Sequence[str] = ()) -> BarSource:
        """The bar source.

        Args:
            named: symbols requested by name; only an exchange uses them.
        """
        return choose_source(self.path or load_settings().bars, exchange_access, named)


class _SpecResource(dg.ConfigurableResource):
    """A resource whose fields are the options of a spec."""

    def given(self) -> dict[str, Any]:
        """The option values, by name."""
        return {name: getattr(self, name) for name in type(self).model_fields}


def _of_spec(
    name: str, base: type[_SpecResource], kind: type[SpecModel], leave_out: Sequence[str] = ()
) -> Any:
    """A resource class with one field per option of a spec, as Dagster's launchpad shows them."""
    options = [option for option in options_of(kind, leave_out) if option.kind is not list]
    types = {o.name: o.kind if o.default is not None else o.kind | None for o in options}
    fields = {o.name: Field(default=o.default, description=o.help) for o in options}
    about = {"__annotations__": types, "__doc__": base.__doc__, "__module__": __name__}
    return type(name, (base,), {**about, **fields})


class _Simulation(_SpecResource):
    """Costs, sizing, stops and direction of the stored backtests; see docs/simulation.md."""

    def config(self) -> SimulationConfig:
        return spec_from(SimulationSpec, self.given()).config()


class _WalkForward(_SpecResource):
    """Windows, objective and search of the stored walk-forwards; see docs/walk-forward.md."""

    def plan(self) -> WalkForwardPlan:
        settings = load_settings()
        spec = spec_from(WalkForwardSpec, {"asset": "any", **self.given()})
        return plan_of(spec, settings.optimizer_max_combinations, settings.wfo_threshold)


if TYPE_CHECKING:

    class SimulationResource(_Simulation):
        def __init__(self, **options: Any) -> None: ...

    class WalkForwardResource(_WalkForward):
        def __init__(self, **options: Any) -> None: ...
else:
    SimulationResource = _of_spec("SimulationResource", _Simulation, SimulationSpec)
    WalkForwardResource = _of_spec(
        "WalkForwardResource",
        _WalkForward,
        WalkForwardSpec,
        [*SimulationSpec.model_fields, *RunSpec.model_fields],
    )
