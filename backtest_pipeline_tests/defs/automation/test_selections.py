"""A run over partitions with others between them: exactly they are planned, computed and shown."""

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import dagster as dg
import pytest

from backtest_pipeline.defs import stored_events
from backtest_pipeline.defs.automation.selections import STAGES, begin_step, run_over
from backtest_pipeline.defs.instance import open_instance
from backtest_pipeline.defs.io_managers import StageIOManager
from backtest_pipeline.defs.partitions import by_asset_and_timeframe, register_partitions
from backtest_pipeline.defs.resources import WorkspaceResource
from backtest_pipeline.market.errors import UnknownName
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.storage.postgres.database import Database, open_database
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline_tests.defs.running import QUIET, run_job, told

SYMBOLS = tuple(f"A{number:04}" for number in range(60))
TIMEFRAMES = ("1D", "1W")
Shown = dict[str, dict[str | None, int]]


def light(instance: dg.DagsterInstance, seen: list[Shown], failing: set[str]) -> dg.Definitions:
    """Two assets that report their partitions without computing anything."""

    def report(context: dg.AssetExecutionContext) -> None:
        keys = begin_step(context)
        seen.append(shown(instance))
        step = context.get_step_execution_context()
        tags = stored_events.provenance(context.instance, stored_events.lineage_of(step))
        rows = [stored_events.StoredRows(key, "1", 1) for key in keys if key not in failing]
        asset = context.asset_key
        stored_events.report(step, [stored_events.materialization(asset, r, tags) for r in rows])
        if failing and stored_events.is_last(step):
            raise stored_events.failure(dict.fromkeys(failing, "too bad"), len(rows))

    stored = partial(
        dg.asset,
        partitions_def=by_asset_and_timeframe,
        backfill_policy=dg.BackfillPolicy.single_run(),
        io_manager_key=STAGES,
    )

    @stored()
    def upper(context: dg.AssetExecutionContext) -> None:
        report(context)

    @stored(deps=["upper"])
    def lower(context: dg.AssetExecutionContext) -> None:
        report(context)

    return dg.Definitions(
        [upper, lower],
        jobs=[dg.define_asset_job("both", executor_def=dg.in_process_executor)],
        resources={STAGES: StageIOManager.configure_at_launch(store=WorkspaceResource())},
    )


def shown(instance: dg.DagsterInstance) -> Shown:
    """How many partitions of each asset the grid shows in which state."""
    keys = [f"{a}|{tf}" for a in instance.get_dynamic_partitions("asset") for tf in TIMEFRAMES]
    found: Shown = {}
    for asset in ("upper", "lower"):
        states = instance.get_status_by_partition(dg.AssetKey(asset), keys, by_asset_and_timeframe)
        counted = Counter(state.value if state else None for state in (states or {}).values())
        found[asset] = dict(counted)
    return found


@pytest.fixture
def instance(
    store: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    """The project's own instance, in Postgres."""
    monkeypatch.setenv("BACKTEST_HOME", str(tmp_path / "home"))
    settings = load_settings()
    with closing(open_database(settings)) as database, open_instance(settings, database) as opened:
        register_partitions(opened, SYMBOLS, TIMEFRAMES)
        yield opened


def run_light(
    instance: dg.DagsterInstance, partitions: list[Partition], failing: set[str]
) -> tuple[dg.ExecuteInProcessResult, list[Shown]]:
    seen: list[Shown] = []
    over = run_over(instance, partitions)
    job = light(instance, seen, failing).resolve_job_def("both")
    run = job.execute_in_process(
        {**QUIET, **over.config}, instance=instance, tags=over.tags, raise_on_error=False
    )
    return run, seen


@pytest.mark.parametrize("n_assets", [len(SYMBOLS), pytest.param(2000, marks=pytest.mark.slow)])
def test_every_second_asset_is_one_run_and_exactly_shown(
    instance: dg.DagsterInstance, n_assets: int
) -> None:
    symbols = tuple(f"A{number:04}" for number in range(n_assets))
    register_partitions(instance, symbols, TIMEFRAMES)
    partitions = [Partition(symbol, tf) for symbol in symbols[::2] for tf in TIMEFRAMES]
    n, all_of_them = len(partitions), len(symbols) * len(TIMEFRAMES)
    rest = {None: all_of_them - n}
    run, seen = run_light(instance, partitions, set())
    assert run.success
    assert seen[0] == {"upper": {"IN_PROGRESS": n, **rest}, "lower": {"IN_PROGRESS": n, **rest}}
    assert seen[1] == {"upper": {"MATERIALIZED": n, **rest}, "lower": {"IN_PROGRESS": n, **rest}}
    assert shown(instance) == {a: {"MATERIALIZED": n, **rest} for a in ("upper", "lower")}
    others = [Partition(symbol, "1W") for symbol in symbols[1::2]]
    run, _ = run_light(instance, others, {str(others[3])})
    assert not run.success
    after = {
        "MATERIALIZED": n + len(others) - 1,
        "FAILED": 1,
        None: all_of_them - n - len(others),
    }
    assert shown(instance) == {"upper": after, "lower": after}


def test_a_whole_range_needs_no_selection(instance: dg.DagsterInstance) -> None:
    over = run_over(instance, [Partition(a, tf) for a in SYMBOLS[3:5] for tf in TIMEFRAMES])
    assert over.config == {}
    assert over.tags == {
        "dagster/asset_partition_range_start": "A0003|1D",
        "dagster/asset_partition_range_end": "A0004|1W",
    }
    with pytest.raises(UnknownName, match="BTC"):
        run_over(instance, [Partition("BTC", "1D")])


def test_a_selection_of_a_planned_range_computes_nothing(instance: dg.DagsterInstance) -> None:
    over = run_over(instance, [Partition("A0000", "1D"), Partition("A0002", "1D")])
    tags = {name: value for name, value in over.tags.items() if name != stored_events.DEFERRED}
    job = light(instance, [], set()).resolve_job_def("both")
    run = job.execute_in_process(
        {**QUIET, **over.config}, instance=instance, tags=tags, raise_on_error=False
    )
    stored = instance.get_run_by_id(run.run_id)
    assert stored is not None
    assert stored.status is dg.DagsterRunStatus.CANCELED
    assert instance.get_materialized_partitions(dg.AssetKey("upper")) == set()


def test_the_chain_computes_what_is_selected(store: Database) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        register_partitions(instance, ("S-ALPHA", "S-BETA", "S-GAMMA"), ["1W", "1M_CAL"])
        wanted = [Partition("S-ALPHA", "1W"), Partition("S-GAMMA", "1W")]
        over = run_over(instance, wanted)
        job_tags, config = over
        run = run_job(instance, "refresh", job_tags, config)
        assert run.success
        for asset in ("bars", "cmc_features", "signals", "backtests"):
            assert set(told(instance, run, asset)) == {str(p) for p in wanted}
