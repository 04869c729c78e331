"""Keys, ranges and what happens by itself."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import pytest

from backtest_pipeline.defs.instance import workspace_file
from backtest_pipeline.defs.partitions import (
    RANGE_END,
    RANGE_START,
    follow_timeframes,
    register_partitions,
    timeframe_ranges,
)
from backtest_pipeline.defs.resources import SourceResource
from backtest_pipeline.defs.sensors import source_assets, store_timeframes
from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.settings import DEFAULT_TIMEFRAMES
from backtest_pipeline.storage.tables.timeframes import add_timeframe, remove_timeframe

TIMEFRAMES = DEFAULT_TIMEFRAMES
NAMES = [f"A{i}" for i in range(6)]


@pytest.fixture(scope="module")
def six_assets() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        register_partitions(instance, NAMES)
        yield instance


@pytest.mark.parametrize("symbol", ["A|B", "A,B", "A[B]", "", "../etc", "A B"])
def test_symbols_that_break_keys_are_left_out_and_cost_the_others_nothing(symbol: str) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert register_partitions(instance, ["AAA", symbol, "BBB"]) == ["AAA", "BBB"]
        assert instance.get_dynamic_partitions("asset") == ["AAA", "BBB"]


def test_timeframes_follow_the_setting_and_the_store(
    store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKTEST_TIMEFRAMES", "1D 1W")
    with dg.DagsterInstance.ephemeral() as instance:

        def partitions() -> tuple[str, list[str]]:
            told = store_timeframes(dg.build_sensor_context(instance))
            assert isinstance(told, dg.SkipReason)
            return str(told.skip_message), list(instance.get_dynamic_partitions("timeframe"))

        assert partitions() == ("added 1D, 1W", ["1D", "1W"])
        with store.begin() as connection:
            add_timeframe(connection, "7D")
        assert partitions() == ("added 7D", ["1D", "1W", "7D"])
        assert partitions() == ("no timeframe was added or removed", ["1D", "1W", "7D"])
        monkeypatch.setenv("BACKTEST_TIMEFRAMES", "1W 1M")
        with store.begin() as connection:
            remove_timeframe(connection, "7D")
        assert partitions() == ("added 1M; deleted 1D, 7D", ["1W", "1M"])
        assert follow_timeframes(instance, ["1W", "1M"]) == ([], [])


def test_a_key_and_its_text_are_the_same() -> None:
    assert Partition.parse("S-ALPHA|1D") == Partition("S-ALPHA", "1D")
    assert str(Partition("S-ALPHA", "1D")) == "S-ALPHA|1D"
    with pytest.raises(InvalidInput, match="ASSET"):
        Partition.parse("S-ALPHA")


def test_the_sensor_adds_assets_of_the_source_once() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        for expected in ("added S-ALPHA", "no new symbol"):
            context = dg.build_sensor_context(
                instance, resources={"source": SourceResource(path="")}
            )
            result = source_assets(context)
            assert isinstance(result, dg.SkipReason)
            assert expected in str(result.skip_message)
        assert len(instance.get_dynamic_partitions("asset")) == 12


def test_exactly_the_timeframes_that_are_named_are_covered() -> None:
    with dg.instance_for_test() as instance:
        register_partitions(instance, NAMES)
        ranges = timeframe_ranges(instance, {"1W", "1D"})
    found = [(tags[RANGE_START], tags[RANGE_END]) for tags in ranges]
    assert found == [("1D", "1D"), ("1W", "1W")]


def test_the_workspace_file_names_the_code_location() -> None:
    text = workspace_file().read_text()
    assert "module_name: backtest_pipeline.definitions" in text
    assert "location_name: backtest_pipeline\n" in text
