"""The command line on the user's own table of features."""

from __future__ import annotations

from pathlib import Path

import pytest

from backtest_pipeline.market.errors import UnknownName
from backtest_pipeline_tests.cli.conftest import CommandLine
from backtest_pipeline_tests.cli.files import daily_bars, write
from backtest_pipeline_tests.theirs import FILTERS, Theirs


@pytest.fixture
def external(cli: CommandLine, theirs: Theirs) -> CommandLine:
    theirs.run(
        "CREATE TABLE theirs.coins AS SELECT id, 'COIN' || id AS symbol FROM theirs.features"
        " GROUP BY id;"
        "GRANT SELECT ON theirs.coins TO PUBLIC"
    )
    cli.monkeypatch.setenv("BACKTEST_FEATURES_TABLE", "theirs.features")
    cli.monkeypatch.setenv("BACKTEST_FEATURES_DSN", theirs.reader)
    cli.monkeypatch.setenv("BACKTEST_FEATURES_FILTERS", FILTERS)
    cli.monkeypatch.setenv("BACKTEST_FEATURES_ASSETS_TABLE", "theirs.coins")
    return cli


def test_a_refresh_and_a_run_use_the_table_and_leave_it_as_it_is(
    external: CommandLine, theirs: Theirs
) -> None:
    theirs.run("UPDATE theirs.features SET close = NULL WHERE id = 1 AND ts < '2016-01-03'")
    before = theirs.content()
    answer = external("refresh", "--timeframes", "1D,1W", "--json")
    assert answer.code == 0, answer.err
    found = answer.json
    assert {run["asset"] for run in found["runs"]} == {"COIN1", "COIN2", "COIN3"}
    assert len(found["runs"]) == 36
    assert found["rows_by_reason"] == [{"reason": "nan_price", "rows": 2, "assets": 1}]

    answer = external("run", "--signal", "rsi_14_30_70", "--asset", "COIN1", "--json")
    assert answer.code == 0, answer.err
    run = answer.json
    assert run["n_bars"] == 298
    assert run["rows_by_reason"] == {"nan_price": 2}
    stored = {(r["signal"], r["asset"], r["timeframe"]): r["run_id"] for r in found["runs"]}
    assert run["run_id"] == stored["rsi_14_30_70", "COIN1", "1D"]
    assert theirs.content() == before


def test_features_that_bars_do_not_give_are_not_compared_on_permuted_bars(
    external: CommandLine,
) -> None:
    found = external.json(
        "robustness", "--signal", "rsi_14_30_70", "--asset", "COIN1", "--draws", "5"
    )
    assert found["numbers"]["p_random_entries"] is None
    assert "not computed from bars" in found["undefined"]["p_random_entries"]
    assert found["numbers"]["random_fill_low"] is not None


def test_the_python_interface_reads_the_table(external: CommandLine, theirs: Theirs) -> None:
    from backtest_pipeline import load_features

    columns = ["bb_ma_20", "has_price_gap", "ema_9", "close"]
    frame = load_features("COIN2", "1W", columns)
    assert list(frame.columns) == columns
    stored = theirs.run(
        "SELECT bb_ma_20, close FROM theirs.features WHERE id = 2 AND tf = '1W' ORDER BY ts"
    )
    assert [row[1] for row in stored] == list(frame["close"])
    assert frame["bb_ma_20"].isna().tolist() == [row[0] is None for row in stored]
    assert len(frame["ema_9"].dropna()) == 292
    with pytest.raises(UnknownName, match="did you mean bb_ma_20"):
        load_features("COIN2", "1W", ["bb_ma_21"])


def test_the_doctor_tells_what_the_table_holds(external: CommandLine) -> None:
    external.monkeypatch.setenv("BACKTEST_BARS", "/data/bars")
    answer = external("doctor")
    assert answer.code == 0, answer.out
    told = {line.split(":")[0]: line for line in answer.out.splitlines()}
    columns, rows = told["ok   features table"], told["ok   features rows"]
    for fact in (
        "114 columns",
        "key columns besides id, ts, tf: alignment_source, venue_id",
        "filters: alignment_source=multi_tf, venue_id=1",
        "EMAs computed from closes",
        "symbols from theirs.coins",
        "BACKTEST_BARS=/data/bars is not used",
    ):
        assert fact in columns
    assert "1D 900 rows of 3 assets until 2016-10-26 23:59:59" in rows
    assert "1W 900 rows of 3 assets until" in rows
    assert "secret" not in answer.out


def test_the_doctor_says_what_drifted_and_how_to_mend_it(
    external: CommandLine, theirs: Theirs
) -> None:
    external.monkeypatch.setenv("BACKTEST_FEATURES_FILTERS", "venue_id=1")
    answer = external("doctor")
    assert answer.code == 1
    assert "alignment_source holds multi_tf" in answer.out
    assert "     fix: set BACKTEST_FEATURES_FILTERS, such as alignment_source=..." in answer.out
    external.monkeypatch.setenv("BACKTEST_FEATURES_FILTERS", FILTERS)
    external.monkeypatch.setenv("BACKTEST_TIMEFRAMES", "4H")
    assert "has no rows of 4H, only of 1D, 1W" in external("doctor").out


def test_bars_cannot_take_the_place_of_the_table(external: CommandLine, tmp_path: Path) -> None:
    for command in (("refresh",), ("run", "--signal", "rsi", "--asset", "COIN1")):
        answer = external(*command, "--bars", write(daily_bars(), tmp_path / "bars.csv"))
        assert answer.code == 1
        assert "features come from the table theirs.features" in answer.message
    assert "the sample market) cannot replace it" in external("demo").message


def test_an_asset_that_the_table_does_not_have_is_named(external: CommandLine) -> None:
    answer = external("run", "--signal", "rsi", "--asset", "COIN7")
    assert answer.code == 1
    assert "unknown asset 'COIN7'; did you mean COIN" in answer.message


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("FEATURES_TABLE", "a.b.c", "BACKTEST_FEATURES_TABLE: must be table or schema.table"),
        ("FEATURES_FILTERS", "venue_id", "BACKTEST_FEATURES_FILTERS: must be column=value"),
        ("FEATURES_FILTERS", "a=1,a=2", "names a twice"),
        ("FEATURES_DSN", "secret=x", "BACKTEST_FEATURES_DSN: is not a valid connection string"),
        ("FEATURES_TABLE", "", "has no effect without BACKTEST_FEATURES_TABLE"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(
    external: CommandLine, variable: str, value: str, says: str
) -> None:
    external.monkeypatch.setenv(f"BACKTEST_{variable}", value)
    answer = external("doctor")
    assert answer.code == 1
    assert says in answer.out
    assert "secret" not in answer.out


def test_a_database_that_does_not_answer_is_named(external: CommandLine) -> None:
    external.monkeypatch.setenv("BACKTEST_FEATURES_DSN", "postgresql://u:secret@127.0.0.1:1/p")
    answer = external("refresh")
    assert answer.code == 1
    assert "127.0.0.1/p" in answer.message
    assert "BACKTEST_FEATURES_DSN is correct" in answer.message
    assert "secret" not in answer.err


def test_rows_that_cannot_be_used_are_left_out_counted_and_named(
    external: CommandLine, theirs: Theirs
) -> None:
    key = "alignment_source, venue_id, tf, open, high, low, close, volume"
    values = "'multi_tf', 1, '1D', 1, 1, 1, 1, 1"
    theirs.run(
        "ALTER TABLE theirs.features ALTER id TYPE bigint;"
        f"INSERT INTO theirs.features (id, ts, {key}) VALUES (2, 'infinity', {values}),"
        f" (2, '-infinity', {values}), (2, '0044-03-15 BC', {values}), (2, '9999-01-01', {values}),"
        f" (9000000000, '2016-01-01', {values})"
    )
    bad_stamps = "4 rows of id 2 left out: the stamp is missing, infinite or outside 1900 to 2261"
    bad_id = "1 row of id 9000000000 left out: an asset's id is at most 2147483647"
    found = external.json("refresh", "--timeframes", "1D")
    assert {run["asset"] for run in found["runs"]} == {"COIN1", "COIN2", "COIN3"}
    assert found["left_out"] == [bad_stamps, bad_id]
    assert {"reason": "unusable_stamp", "rows": 4, "assets": 1} in found["rows_by_reason"]
    assert f"left out: {bad_id}" in external("refresh", "--timeframes", "1D").out
    run = external.json("run", "--signal", "rsi_14_30_70", "--asset", "COIN2")
    assert run["n_bars"] == 300
    assert bad_stamps in external("doctor").out


def test_an_asset_without_the_timeframe_says_which_there_are(
    external: CommandLine, theirs: Theirs
) -> None:
    theirs.run("UPDATE theirs.features SET tf = '1d' WHERE id = 1 AND tf = '1D'")
    answer = external("run", "--signal", "rsi_14_30_70", "--asset", "COIN1")
    assert answer.code == 1
    assert (
        "no row of this asset and timeframe, but of tf 1W, 1d; name a view in its place"
        in answer.message
    )
