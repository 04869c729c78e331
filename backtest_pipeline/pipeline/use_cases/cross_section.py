"""Cross-sections on demand and by refreshes, from stored features."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from backtest_pipeline.market.errors import BacktestError, InvalidInput, PartitionError
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.pipeline.cross_section.ranked_identity import RankedTerms
from backtest_pipeline.pipeline.cross_section.ranked_runs import run_ranked
from backtest_pipeline.pipeline.monitoring.counters import EXTERNAL, counted
from backtest_pipeline.pipeline.runs.identity import Window
from backtest_pipeline.pipeline.specs import CrossSectionSpec
from backtest_pipeline.pipeline.stage import of_the_environment
from backtest_pipeline.pipeline.workspace import Workspace, retried
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.sources.choose import exchange_of
from backtest_pipeline.storage.run_tables.cross_sections import note_refreshed
from backtest_pipeline.storage.run_tables.run_search import note_request
from backtest_pipeline.storage.settings import Settings
from backtest_pipeline.strategies.cross_section.cross_section_file import cross_section_from_toml
from backtest_pipeline.strategies.cross_section.definition import CrossSection
from backtest_pipeline.strategies.known_strategies import catalogue, look_again
from backtest_pipeline.strategies.own.loading import GIVEN
from backtest_pipeline.strategies.registry import (
    cross_section_of,
    require_folder,
    require_own_name,
)


def rule_of_spec(spec: CrossSectionSpec) -> CrossSection:
    """The strategy of a spec, by its name or its rules.

    Raises:
        InvalidInput: unless exactly one of them is given.
        UnknownName, StrategyRefused: for a name that is unknown, a file that cannot be read, or
            rules with the name of another strategy.
        RuleError: for rules that cannot be read, with their place.
    """
    if (spec.strategy is None) == (spec.rules is None):
        raise InvalidInput("a cross-section needs either strategy, its name, or rules, its TOML")
    look_again()
    if spec.rules is None:
        return cross_section_of(spec.strategy or "")
    rule = cross_section_from_toml(spec.rules.encode(errors="surrogatepass"), GIVEN)
    require_own_name(rule)
    return rule


def run_cross_section(
    workspace: Workspace,
    settings: Settings,
    spec: CrossSectionSpec,
    user: str = "",
    *,
    bars: str = "",
    rebuild: bool = False,
) -> UUID:
    """Rank the universe of a spec, trade it, and store the run; returns its id.

    It counts as a run. Arguments as those of `execution.execute`.

    Raises:
        UnknownName, InvalidInput, BadSymbols, RuleError: for an invalid spec, with the reason.
        BacktestError: where no features are stored.
    """
    if bars:
        raise InvalidInput("a cross-section ranks stored features: leave out bars, and refresh")
    exchange = EXTERNAL if workspace.external is not None else exchange_of(settings.bars)
    with counted(workspace, "run", exchange=exchange, timeframe=spec.timeframe):
        terms = RankedTerms(spec.config(), Window(spec.start, spec.end), tuple(spec.symbols))
        rule = rule_of_spec(spec)
        run_id, _ = run_ranked(workspace, rule, spec.timeframe, terms, rebuild=rebuild)
        if user:
            with workspace.database.begin() as connection:
                note_request(connection, [run_id], user)
    return run_id


@dataclass(frozen=True)
class RefreshedCrossSections:
    """The cross-sections of a timeframe.

    Attributes:
        run_ids: their runs, by name.
        n_new: how many were computed now.
    """

    run_ids: Mapping[str, UUID]
    n_new: int


def refresh_at(
    workspace: Workspace, tf: str, names: Sequence[str], config: SimulationConfig
) -> RefreshedCrossSections:
    """Run all cross-sections of the folder of strategies at a timeframe, on all its assets.

    Those that can be run are stored, also where others fail. What refreshes ran before and this one
    does not, such as that of a file that is gone, is not current afterwards.

    Args:
        workspace: the open store.
        tf: name of the timeframe.
        names: only these; all where empty.
        config: costs, starting cash and risk-free return; the other settings are not for books that
            rank their assets, and are left out.

    Raises:
        UnknownName, StrategyRefused: for one of `names` that there is not, or whose file cannot be
            read; StrategyRefused for a folder that cannot.
        PartitionError: where any of them failed, or the file of any cannot be read, with each
            reason.
    """
    look_again()
    require_folder()
    found = catalogue()
    chosen = [cross_section_of(name) for name in names or sorted(found.cross_sections)]
    unreadable = () if names else sorted(found.refused_cross_sections)
    terms = RankedTerms(
        SimulationConfig(
            costs=config.costs, initial_cash=config.initial_cash, risk_free=config.risk_free
        )
    )
    run_ids: dict[str, UUID] = {}
    failed = [f"{name} cannot be used: {found.refused[name]}" for name in unreadable]
    n_new = 0
    for rule in chosen:
        try:
            run_ids[rule.name], is_new = run_ranked(workspace, rule, tf, terms, "refresh")
            n_new += is_new
        except BacktestError as error:
            if of_the_environment(error):
                raise
            failed.append(f"{rule.name}: {error}")
    known = None if names else {*found.cross_sections, *found.refused_cross_sections}
    _note_refreshed(workspace, timeframe(tf).name, run_ids, known)
    if failed:
        raise PartitionError("cross_sections", tf, "; ".join(failed))
    return RefreshedCrossSections(run_ids, n_new)


@retried
def _note_refreshed(
    workspace: Workspace, tf: str, run_ids: Mapping[str, UUID], known: Collection[str] | None
) -> None:
    with workspace.database.begin() as connection:
        note_refreshed(connection, tf, run_ids, known)
