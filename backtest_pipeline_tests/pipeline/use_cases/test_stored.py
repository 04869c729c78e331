"""A stored result is found without computing exactly where computing would return it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from backtest_pipeline.market.errors import LooksAhead, StrategyRefused, UnknownName
from backtest_pipeline.pipeline.execution import execute, look_up
from backtest_pipeline.pipeline.specs import PortfolioSpec, RunSpec, StrategySpec, WalkForwardSpec
from backtest_pipeline.pipeline.versions import probe_code
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.sources.files import states
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.settings import Settings, load_settings
from backtest_pipeline_tests.cli.files import daily_bars, write
from backtest_pipeline_tests.conftest import database_like
from backtest_pipeline_tests.own_strategies import DIP, own_strategies
from backtest_pipeline_tests.sql import execute_sql, scalar

EMA = {"strategy": "ema_crossover", "params": {"fast": 3, "slow": 8}, "timeframe": "1D"}


@dataclass(frozen=True)
class Store:
    """A store of files, and who asks it."""

    workspace: Workspace
    settings: Settings
    bars: Path

    def spec(self, symbol: str = "AAA", **changes: Any) -> RunSpec:
        return RunSpec.model_validate({**EMA, "symbol": symbol, **changes})

    def found(self, spec: StrategySpec) -> str | None:
        """What is stored of a spec, as JSON."""
        result = look_up(self.workspace, self.settings, spec, "ann")
        return None if result is None else result.model_dump_json()

    def computed(self, spec: StrategySpec) -> str:
        return execute(self.workspace, self.settings, spec, "ann").model_dump_json()


@pytest.fixture(scope="module")
def store(template: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("stored")
    (folder / "bars").mkdir()
    for symbol in ("AAA", "BBB", "DDD"):
        write(daily_bars(120, symbol), folder / "bars" / f"{symbol}.csv")
    settings = load_settings(home=str(folder), bars=str(folder / "bars"), timeframes="1D,1W")
    for database in database_like(template, "backtest"):
        workspace = Workspace(database, ArtifactStore(folder / "artifacts"))
        yield Store(workspace, settings, folder / "bars")


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as settled at once."""
    monkeypatch.setattr(states, "_SETTLED_NS", 0)


def test_what_was_computed_is_found_until_the_source_changes(store: Store) -> None:
    spec = store.spec(costs={"fee_bps": 1})
    assert store.found(spec) is None
    first = store.computed(spec)
    assert store.found(spec) == first
    write(daily_bars(130, "AAA"), store.bars / "AAA.csv")
    assert store.found(spec) is None
    second = store.computed(spec)
    assert store.found(spec) == second != first


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE source_states SET state = 'another' WHERE id = {id}",
        # As older code would have stored it.
        r"UPDATE source_states SET state = regexp_replace(state, '^bars \d+', 'bars 0')",
        "DELETE FROM source_states WHERE id = {id}",
        "UPDATE dataset_versions SET version = 'x' WHERE id = {id} AND dataset = 'bars'",
        "UPDATE dataset_versions SET input_version = 'x' WHERE id = {id} AND dataset = 'features'",
        "UPDATE dataset_versions SET code_version = 'x' WHERE id = {id} AND dataset = 'features'",
        "UPDATE backtest_runs SET is_current = FALSE WHERE id = {id}",
        "UPDATE backtest_metrics SET deflated_at = '2020-01-01'",
    ],
)
def test_it_is_not_found_where_it_may_be_another(store: Store, damage: str) -> None:
    before = store.computed(spec := store.spec())
    asset = scalar(store.workspace, "SELECT id FROM dim_assets WHERE symbol = 'AAA'")
    execute_sql(store.workspace, damage.format(id=asset))
    assert store.found(spec) is None
    assert store.computed(spec) == store.found(spec) == before


def test_a_trial_of_a_new_set_of_parameters_counts_before_it_is_found(store: Store) -> None:
    store.computed(spec := store.spec("BBB"))
    store.computed(store.spec("BBB", end="2024-04-01"))
    store.computed(spec)
    execute_sql(
        store.workspace,
        "CREATE TABLE more AS SELECT * FROM trials WHERE symbol = 'BBB' LIMIT 1;"
        "ALTER TABLE more DROP set_id, DROP family;"
        'UPDATE more SET trial_id = gen_random_uuid(), params = \'{"fast": 4, "slow": 9}\','
        " created_at = clock_timestamp(), window_start = NULL, window_end = NULL",
    )
    names = scalar(
        store.workspace,
        "SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute"
        " WHERE attrelid = 'more'::regclass AND attnum > 0 AND NOT attisdropped",
    )
    execute_sql(store.workspace, f"INSERT INTO trials ({names}) SELECT {names} FROM more")
    assert store.found(spec) is None
    after = store.computed(spec)
    assert store.found(spec) == after


def test_a_portfolio_is_found_with_its_members(store: Store) -> None:
    spec = PortfolioSpec.model_validate({**EMA, "symbols": ["BBB", "AAA"]})
    assert store.found(spec) is None
    computed = store.computed(spec)
    assert store.found(spec) == computed


def test_days_that_are_stored_later_mark_the_weeks(store: Store) -> None:
    weekly = store.spec("DDD", timeframe="1W")
    at_weeks = store.computed(weekly)
    assert store.found(weekly) == at_weeks
    store.computed(store.spec("DDD"))
    assert store.found(weekly) is None
    assert store.computed(weekly) != at_weeks


def test_without_its_files_it_is_computed_again(store: Store) -> None:
    store.computed(spec := store.spec(costs={"fee_bps": 7}))
    uri = scalar(
        store.workspace,
        "SELECT artifact_uri FROM backtest_runs ORDER BY completed_at DESC LIMIT 1",
    )
    shutil.rmtree(store.bars.parent / "artifacts" / uri)
    assert store.found(spec) is None
    after = store.computed(spec)
    assert store.found(spec) == after


@pytest.mark.parametrize("changes", [{"bands": True}, {"benchmark": "universe"}])
def test_what_takes_computing_is_not_looked_up(store: Store, changes: dict[str, Any]) -> None:
    store.computed(spec := store.spec(**changes))
    assert store.found(spec) is None


def test_rules_are_looked_up_and_python_of_a_users_own_is_not(store: Store, tmp_path: Path) -> None:
    spec = store.spec(strategy=None, params={}, rules='name = "up"\nlong_entry = "close > open"\n')
    assert store.computed(spec) == store.found(spec)
    failing = DIP.replace('("close",)', '("close",) if params.length < 30 else exit(3)')
    with own_strategies(tmp_path / "own", {"dip.py": failing}):
        store.computed(spec := store.spec(strategy="dip", params={}))
        assert store.found(spec) is None
        preset = store.spec(strategy=None, params={}, preset="dip_2_20")
        assert store.computed(preset) == store.computed(spec)
        assert store.found(preset) is None
        ending = store.spec(strategy="dip", params={"length": 30})
        assert store.found(ending) is None  # its code did not run
        with pytest.raises(StrategyRefused, match=r"columns\(\) fails: SystemExit: 3"):
            store.computed(ending)


def test_a_spec_that_is_refused_is_refused_at_once(store: Store) -> None:
    with pytest.raises(UnknownName, match="ema_crosover"):
        store.found(store.spec(strategy="ema_crosover"))
    assert store.found(store.spec("ZZZ")) is None
    with pytest.raises(UnknownName, match="ZZZ"):
        store.computed(store.spec("ZZZ"))


def test_a_bar_that_is_not_over_may_be_there_later(store: Store) -> None:
    live = daily_bars(120, "CCC")
    live.loc[119, "ts"] = pd.Timestamp.now("UTC").floor("D")
    write(live, store.bars / "CCC.csv")
    store.computed(spec := store.spec("CCC"))
    assert store.found(spec) is None


WALK = {
    "kind": "walkforward",
    "strategy": "ema_crossover",
    "params": {"fast": [3, 5], "slow": [8, 13]},
    "timeframe": "1D",
    "train_days": 60,
    "test_days": 20,
}


def test_a_walk_forward_is_found_with_its_folds_until_something_changes(store: Store) -> None:
    write(daily_bars(160, "EEE"), store.bars / "EEE.csv")
    spec = WalkForwardSpec.model_validate({**WALK, "symbol": "EEE"})
    assert store.found(spec) is None
    first = store.computed(spec)
    assert '"fold":0' in first
    assert store.found(spec) == first
    judged = store.settings.model_copy(update={"wfo_threshold": 0.9})
    assert look_up(store.workspace, judged, spec) is None  # its verdict has another threshold
    other = store.computed(spec.model_copy(update={"params": {"fast": [3, 5], "slow": [8, 21]}}))
    assert other != first
    again = store.found(spec)  # judged as one of two now
    assert again == store.computed(spec) != first
    write(daily_bars(170, "EEE"), store.bars / "EEE.csv")
    assert store.found(spec) is None
    assert store.computed(spec) == store.found(spec) != again


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE source_states SET state = 'another'",
        "UPDATE walk_forward_runs SET threshold = 0.123",
        "UPDATE backtest_metrics SET deflated_at = '2020-01-01'",
        "DELETE FROM strategy_probes",
    ],
)
def test_a_walk_forward_is_not_found_where_it_may_be_another(store: Store, damage: str) -> None:
    spec = WalkForwardSpec.model_validate({**WALK, "symbol": "BBB"})
    before = store.computed(spec)
    execute_sql(store.workspace, damage)
    assert store.found(spec) is None
    assert store.computed(spec) == store.found(spec) == before


def test_a_strategy_that_is_found_to_look_ahead_is_refused(store: Store) -> None:
    store.computed(spec := store.spec(params={"fast": 2, "slow": 9}))
    execute_sql(
        store.workspace,
        "UPDATE strategy_probes SET leak = 'it knows the close' WHERE code_version = :code",
        code=probe_code("ema_crossover"),
    )
    assert store.found(spec) is None
    with pytest.raises(LooksAhead, match="knows the close"):
        store.computed(spec)
