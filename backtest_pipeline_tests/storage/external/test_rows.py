"""Reading the user's table: values, order, grain, looks, names."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest_pipeline.market.errors import BarsError, StoreError, TableDrift
from backtest_pipeline.market.features import READ_COLUMNS
from backtest_pipeline.market.partitions import checked_symbol
from backtest_pipeline.market.symbols import key_of
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.storage.external.assets import KnownAsset, names_of
from backtest_pipeline.storage.external.rows import read_emas, read_panel
from backtest_pipeline.storage.external.watermarks import Watermark, current_watermarks
from backtest_pipeline_tests.theirs import FILTERS, Theirs

DAILY = timeframe("1D")


def look(theirs: Theirs, *arguments: str) -> dict[tuple[int, str], Watermark]:
    table = theirs.open(*arguments)
    try:
        return current_watermarks(table)
    finally:
        table.close()


def test_values_come_bit_for_bit_in_the_order_asked(theirs: Theirs) -> None:
    table = theirs.open()
    panel = read_panel(table, DAILY, ("C", "A"), (3, 1), READ_COLUMNS)
    table.close()
    assert panel.lengths.tolist() == [300, 300]
    for asset, id_ in (("C", 3), ("A", 1)):
        rows = theirs.run(
            f"SELECT (extract(epoch FROM ts) * 1000000)::bigint, close, adx_14"
            f" FROM theirs.features WHERE id = {id_} AND tf = '1D' ORDER BY ts"
        )
        expected = np.array(rows, dtype=float)
        of_asset = panel.rows_of(asset)
        np.testing.assert_array_equal(panel.ts[of_asset], expected[:, 0])
        np.testing.assert_array_equal(panel["close"][of_asset], expected[:, 1])
        np.testing.assert_array_equal(panel["adx_14"][of_asset], expected[:, 2])


def test_other_rows_of_the_key_are_not_seen(theirs: Theirs) -> None:
    theirs.run(
        "CREATE TEMP TABLE more AS SELECT * FROM theirs.features WHERE tf = '1D';"
        "UPDATE more SET venue_id = 2, close = 1;"
        "INSERT INTO theirs.features SELECT * FROM more"
    )
    table = theirs.open()
    panel = read_panel(table, DAILY, ("A",), (1,), READ_COLUMNS)
    table.close()
    assert len(panel) == 300
    assert panel["close"].min() > 1
    assert look(theirs)[1, "1D"].n_rows == 300


def test_a_key_that_is_there_twice_is_named(theirs: Theirs) -> None:
    theirs.run(
        "ALTER TABLE theirs.features DROP CONSTRAINT features_pkey;"
        "INSERT INTO theirs.features SELECT * FROM theirs.features"
        " WHERE id = 2 AND tf = '1D' ORDER BY ts LIMIT 3"
    )
    table = theirs.open()
    with pytest.raises(BarsError, match=r"B\|1D \(id 2\) at 2016-01-01 23:59:59.999.*3 duplicate"):
        read_panel(table, DAILY, ("A", "B"), (1, 2), READ_COLUMNS)
    table.close()


def test_many_assets_are_read_by_several_sessions(theirs: Theirs) -> None:
    theirs.run(
        "CREATE TABLE theirs.one AS SELECT * FROM theirs.features WHERE id = 1 AND tf = '1D'"
        " ORDER BY ts LIMIT 20"
    )
    theirs.run(
        "CREATE TABLE theirs.many AS SELECT * FROM theirs.one;"
        "UPDATE theirs.many SET id = 0;"
        "INSERT INTO theirs.many SELECT (x).* FROM (SELECT jsonb_populate_record(o,"
        " jsonb_build_object('id', n)) AS x FROM theirs.one o, generate_series(1, 40) n) s;"
        "GRANT SELECT ON theirs.many TO PUBLIC"
    )
    ids = list(range(40, -1, -1))
    table = theirs.open("theirs.many")
    panel = read_panel(table, DAILY, [f"A{i}" for i in ids], ids, ("close",))
    table.close()
    assert panel.lengths.tolist() == [20] * 41
    np.testing.assert_array_equal(panel["close"][:20], panel["close"][-20:])


def test_emas_come_from_the_table_beside_it(theirs: Theirs) -> None:
    theirs.run(
        "CREATE TABLE theirs.emas AS SELECT id, ts, tf, 9 AS period, close * 2 AS ema"
        " FROM theirs.features WHERE id <> 3;"
        "DELETE FROM theirs.emas WHERE id = 2 AND ts < '2016-02-01';"
        "GRANT SELECT ON theirs.emas TO PUBLIC"
    )
    table = theirs.open(emas="theirs.emas")
    panel = read_panel(table, DAILY, ("B", "A", "C"), (2, 1, 3), READ_COLUMNS)
    emas = read_emas(table, panel, (2, 1, 3), (9, 21))
    table.close()
    expected = panel["close"] * 2
    expected[:31] = np.nan
    expected[panel.rows_of("C")] = np.nan
    np.testing.assert_array_equal(emas[9], expected)
    assert np.isnan(emas[21]).all()


CHANGES = {
    "a row is added": "INSERT INTO theirs.features (id, ts, tf, alignment_source, venue_id)"
    " VALUES (1, now(), '1D', 'multi_tf', 1)",
    "a row is gone": "DELETE FROM theirs.features WHERE id = 1 AND tf = '1D' AND ts < '2016-01-02'",
    "an old row is restated": "UPDATE theirs.features SET close = 1, updated_at = now()"
    " WHERE id = 1 AND tf = '1D' AND ts < '2016-01-02'",
    "an old row is restored": "UPDATE theirs.features SET updated_at = '2001-01-01'"
    " WHERE id = 1 AND tf = '1D' AND ts < '2016-01-02'",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_look_shows_which_partition_changed(theirs: Theirs, change: str) -> None:
    before = look(theirs)
    assert set(before) == {(id_, tf) for id_ in (1, 2, 3) for tf in ("1D", "1W")}
    theirs.run(CHANGES[change])
    after = look(theirs)
    assert {key for key in before if before[key] != after[key]} == {(1, "1D")}


def test_a_look_needs_the_index_only(theirs: Theirs) -> None:
    theirs.run(
        "CREATE INDEX ON theirs.features (alignment_source, venue_id, tf, id)"
        " INCLUDE (ts, updated_at)"
    )
    theirs.run("VACUUM theirs.features")
    plan = "\n".join(
        row[0]
        for row in theirs.run(
            "SET enable_seqscan = off; EXPLAIN SELECT id, tf, count(*), min(ts), max(ts),"
            " sum(extract(epoch FROM updated_at)) FROM theirs.features"
            " WHERE alignment_source IN ('multi_tf') AND venue_id IN ('1') GROUP BY id, tf"
        )
    )
    assert "Index Only Scan" in plan


def test_without_times_of_writing_a_look_shows_rows_and_stamps(theirs: Theirs) -> None:
    theirs.run("ALTER TABLE theirs.features DROP COLUMN updated_at")
    before = look(theirs)
    theirs.run("DELETE FROM theirs.features WHERE id = 1 AND tf = '1W' AND ts < '2016-01-09'")
    after = look(theirs)
    assert {key for key in before if before[key] != after[key]} == {(1, "1W")}


def test_other_filters_are_another_dataset(theirs: Theirs) -> None:
    both = look(theirs, "theirs.features", f"{FILTERS},tf=1D|1W")
    assert both[1, "1D"].n_rows == look(theirs)[1, "1D"].n_rows
    assert both[1, "1D"].version != look(theirs)[1, "1D"].version


def test_a_table_that_vanishes_says_so(theirs: Theirs) -> None:
    table = theirs.open()
    theirs.run("DROP TABLE theirs.features")
    with pytest.raises(StoreError, match="has changed since it was opened"):
        current_watermarks(table)
    table.close()


SYMBOLS = st.sampled_from(["BTC", "LUNA", "$WIF", "", "ID-3", "LUNA-2", "A B"])


@given(
    st.sets(st.integers(1, 6)),
    st.dictionaries(st.integers(1, 6), SYMBOLS),
    st.lists(st.sampled_from(["BTC", "LUNA", "XRP", "ID-3"]), unique=True),
)
def test_every_id_has_one_name_and_keeps_it(
    ids: set[int], offered: dict[int, str], known_symbols: list[str]
) -> None:
    known = [KnownAsset(i, symbol, "files") for i, symbol in enumerate(known_symbols, start=1)]
    names = names_of(ids, known, offered)
    assert set(names) == ids
    assert len(set(names.values())) == len(ids)
    for id_, name in names.items():
        assert checked_symbol(name) == name
        if id_ <= len(known_symbols):
            assert name == known_symbols[id_ - 1]
        else:
            assert name not in known_symbols
    stored = [*known, *(KnownAsset(i, n, "external") for i, n in names.items() if i > len(known))]
    assert names_of(ids | {7}, stored, {**offered, 7: "LUNA"}) | names == names_of(
        ids | {7}, stored, {**offered, 7: "LUNA"}
    )


def test_two_coins_of_one_ticker_are_two_assets() -> None:
    assert names_of([4172, 20314], [], {4172: "LUNA", 20314: "LUNA"}) == {
        4172: "LUNA",
        20314: "LUNA-20314",
    }
    assert names_of([7], [], {7: "$WIF"}) == {7: key_of("$WIF")}
    assert names_of([7], [], {}) == {7: "ID-7"}


def test_an_id_that_the_store_gave_itself_is_not_taken_for_theirs() -> None:
    with pytest.raises(TableDrift, match="id 100001, which is S-ALPHA from sample"):
        names_of([100_001], [KnownAsset(100_001, "S-ALPHA", "sample")], {})
