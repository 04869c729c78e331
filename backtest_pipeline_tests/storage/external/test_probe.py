"""What the user's table may look like, and what is refused by name."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from backtest_pipeline.market.errors import StoreError, TableDrift
from backtest_pipeline_tests.theirs import FILTERS, Theirs


def refusal(theirs: Theirs, *arguments: str, **options: str) -> str:
    with pytest.raises(TableDrift) as caught:
        theirs.open(*arguments, **options)  # pyright: ignore[reportArgumentType]
    return str(caught.value)


def test_a_table_with_two_more_key_columns_is_read_through_filters(theirs: Theirs) -> None:
    table = theirs.open()
    assert table.keys == ("alignment_source", "venue_id")
    assert len(table.features.columns) == 114
    assert table.stamped
    table.close()


def test_every_key_column_needs_a_filter_and_the_error_names_its_values(theirs: Theirs) -> None:
    theirs.run("UPDATE theirs.features SET venue_id = 7 WHERE id = 2")
    said = refusal(theirs, "theirs.features", "alignment_source=multi_tf")
    assert "the key has venue_id besides id, ts and tf" in said
    assert "venue_id holds 1, 7" in said
    assert "set BACKTEST_FEATURES_FILTERS, such as venue_id=..." in said


def test_a_known_key_column_needs_a_filter_without_an_index_too(theirs: Theirs) -> None:
    theirs.run("ALTER TABLE theirs.features DROP CONSTRAINT features_pkey")
    assert "alignment_source holds multi_tf" in refusal(theirs, "theirs.features", "venue_id=1")


def test_a_key_column_of_any_name_is_found_by_its_unique_index(theirs: Theirs) -> None:
    theirs.run("ALTER TABLE theirs.features ADD COLUMN feed TEXT NOT NULL DEFAULT 'a'")
    theirs.run("ALTER TABLE theirs.features DROP CONSTRAINT features_pkey")
    theirs.run("CREATE UNIQUE INDEX ON theirs.features (id, ts, tf, feed)")
    assert "feed holds a" in refusal(theirs)
    theirs.open("theirs.features", f"{FILTERS},feed=a").close()


def test_a_row_number_is_no_key_column(theirs: Theirs) -> None:
    theirs.run("ALTER TABLE theirs.features ADD COLUMN row_no BIGSERIAL UNIQUE")
    theirs.open().close()


def test_a_filter_on_a_column_that_there_is_not_is_refused(theirs: Theirs) -> None:
    said = refusal(theirs, "theirs.features", f"{FILTERS},venue=1")
    assert "unknown column 'venue'; did you mean venue_id" in said


@pytest.mark.parametrize("value", ["2", "binance", "1%", "'; DROP TABLE theirs.features; --"])
def test_a_filter_that_no_row_fulfils_is_refused_with_the_values(
    theirs: Theirs, value: str
) -> None:
    said = refusal(theirs, "theirs.features", f"alignment_source=multi_tf,venue_id={value}")
    assert f"no row with venue_id={value}; use one of its values: 1" in said


def test_several_values_of_one_column_may_count(theirs: Theirs) -> None:
    theirs.run("UPDATE theirs.features SET alignment_source = 'multi_tf_cal_us' WHERE tf = '1W'")
    filters = "alignment_source=multi_tf|multi_tf_cal_us,venue_id=1"
    theirs.open("theirs.features", filters).close()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("RENAME COLUMN rsi_14 TO rsi14", "unknown column 'rsi_14'; did you mean rsi14"),
        ("DROP COLUMN close CASCADE", "unknown column 'close'"),
        ("ALTER COLUMN close TYPE text", "column close is text, not smallint or integer"),
        ("ALTER COLUMN tf TYPE char(3)", "column tf is character, not text"),
        (
            "ALTER COLUMN ts TYPE timestamp",
            "column ts is timestamp without time zone, not timestamp with time zone",
        ),
    ],
)
def test_a_missing_or_retyped_column_is_named(theirs: Theirs, change: str, says: str) -> None:
    theirs.run(f"ALTER TABLE theirs.features {change}")
    assert says in refusal(theirs)


def test_all_missing_columns_are_named_at_once(theirs: Theirs) -> None:
    theirs.run("ALTER TABLE theirs.features DROP COLUMN rsi_7, DROP COLUMN atr_14")
    said = refusal(theirs)
    assert "'rsi_7'" in said
    assert "'atr_14'" in said


def test_columns_that_nobody_reads_may_be_more_or_fewer(theirs: Theirs) -> None:
    theirs.run("ALTER TABLE theirs.features ADD COLUMN mood TEXT, DROP COLUMN bb_ma_20")
    theirs.run("ALTER TABLE theirs.features DROP COLUMN updated_at")
    table = theirs.open()
    assert not table.stamped
    table.close()


def test_numbers_of_any_type_and_varying_text_are_taken(theirs: Theirs) -> None:
    theirs.run(
        "ALTER TABLE theirs.features ALTER COLUMN close TYPE numeric(20, 8),"
        " ALTER COLUMN rsi_14 TYPE real, ALTER COLUMN id TYPE bigint,"
        " ALTER COLUMN tf TYPE varchar(16)"
    )
    theirs.open().close()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("theirs.featurs", "unknown table 'theirs.featurs'; did you mean theirs.features"),
        ("theirs.Features", "did you mean theirs.features"),
        ('features"; DROP TABLE theirs', "unknown table"),
        ("nowhere.features", "unknown table 'nowhere.features'"),
    ],
)
def test_a_table_that_there_is_not_is_named_with_the_nearest(
    theirs: Theirs, name: str, says: str
) -> None:
    assert says in refusal(theirs, name)


def test_a_renamed_table_and_a_view_are_read(theirs: Theirs) -> None:
    theirs.run('ALTER TABLE theirs.features RENAME TO "Wide Features"')
    theirs.run('CREATE VIEW theirs.plain AS SELECT * FROM theirs."Wide Features"')
    theirs.run("GRANT SELECT ON ALL TABLES IN SCHEMA theirs TO PUBLIC")
    theirs.open("theirs.Wide Features").close()
    table = theirs.open("theirs.plain")
    assert table.keys == ("alignment_source", "venue_id")
    table.close()


def test_a_table_that_may_not_be_read_is_refused_with_the_grant(theirs: Theirs) -> None:
    theirs.run("CREATE TABLE theirs.hidden (LIKE theirs.features)")
    said = refusal(theirs, "theirs.hidden")
    assert 'GRANT SELECT ON "theirs"."hidden" TO "reader_' in said


def test_the_table_that_is_built_here_is_not_taken_for_the_users_own(theirs: Theirs) -> None:
    with pytest.raises(TableDrift, match="is the table that this project builds"):
        theirs.open("cmc_features", "", joined=True)


def test_the_tables_beside_it_are_looked_at_as_well(theirs: Theirs) -> None:
    theirs.run(
        "CREATE TABLE theirs.emas (id int, ts timestamptz, tf text, period int, venue_id"
        " int, ema float8)"
    )
    theirs.run("CREATE TABLE theirs.coins (id int, ticker text)")
    theirs.run("GRANT SELECT ON ALL TABLES IN SCHEMA theirs TO PUBLIC")
    assert "theirs.emas has no row with venue_id=1" in refusal(theirs, emas="theirs.emas")
    assert "theirs.coins: unknown column 'symbol'" in refusal(theirs, assets="theirs.coins")
    theirs.run("INSERT INTO theirs.emas VALUES (1, now(), '1D', 9, 1, 1.0)")
    theirs.open(emas="theirs.emas").close()


@pytest.mark.parametrize("joined", [False, True])
def test_no_session_can_write_there(theirs: Theirs, joined: bool) -> None:
    refused = pytest.raises(StoreError, match=r"read-only transaction|permission denied")
    before = theirs.content()
    table = theirs.open(joined=joined)
    for statement in ("DELETE FROM theirs.features", "CREATE TABLE theirs.mine (i int)"):
        with refused, table.database.begin() as connection:
            connection.execute(sa.text(statement))
        with refused, table.database.arrow() as arrow, arrow.cursor() as cursor:
            cursor.execute(statement)
    table.close()
    assert theirs.content() == before
