from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import sqlalchemy as sa

from backtest_pipeline.market.errors import InvalidInput, StoreError
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.tables.feature_writing import ComputedFeatures, write_features
from backtest_pipeline.storage.tables.signal_writing import write_signals
from backtest_pipeline.storage.tables.signals import (
    Maker,
    SignalEvents,
    SignalState,
    read_signals,
)
from backtest_pipeline_tests.storage.panels import ensure_assets, feature_types, random_panel

HASHES = {1: "hash-1", 2: "hash-2"}


@pytest.fixture
def panel(database: Database) -> Panel:
    panel = random_panel(database, {"BTC": 20, "ETH": 20})
    ids = ensure_assets(database, panel.assets)
    inputs = dict.fromkeys(panel.assets, "bars-1")
    write_features(database, ComputedFeatures(panel, inputs, "code-1"), ids)
    return panel


def events_at(panel: Panel, database: Database, rows: list[int], signal: int = 1) -> SignalEvents:
    """Alternating long entries and exits at these rows of the panel."""
    ids = np.array(list(ensure_assets(database, panel.assets).values()))
    at = np.array(rows, int)
    return SignalEvents(
        signal_id=np.full(len(at), signal),
        asset_id=ids[panel.segment_of_row[at]],
        ts=panel.ts[at],
        is_long=np.ones(len(at), bool),
        is_entry=np.arange(len(at)) % 2 == 0,
        close=panel["close"][at],
        emas={9: panel["ema_9"][at], 21: np.full(len(at), np.nan)},
    )


def states_for(panel: Panel, database: Database, signal: int = 1) -> list[SignalState]:
    ids = ensure_assets(database, panel.assets)
    return [SignalState(signal, ids[asset], int(panel.ts[-1])) for asset in panel.assets]


def write(
    database: Database,
    panel: Panel,
    events: SignalEvents,
    states: list[SignalState] | None = None,
    since: dict[tuple[int, int], int] | None = None,
) -> int:
    signal = int(events.signal_id[0]) if len(events) else 1
    return write_signals(
        database,
        panel.timeframe,
        events,
        states or states_for(panel, database, signal),
        makers={signal: Maker(hashed, "v1") for signal, hashed in HASHES.items()},
        ids={},
        versions={},
        since=since,
    )


def test_a_snapshot_holds_every_feature_of_the_bar_and_the_emas(
    database: Database, panel: Panel
) -> None:
    row = 27  # the eighth bar of ETH
    write(database, panel, events_at(panel, database, [row]))
    stored = read_signals(database, panel.timeframe, ["ETH"], snapshots=True).to_pylist()[0]
    snapshot = json.loads(stored["feature_snapshot"])
    for name in feature_types(database):
        value = panel[name][row]
        assert snapshot[name] == (None if np.isnan(value) else value), name
    assert snapshot["ema_9"] == panel["ema_9"][row]
    assert snapshot["ema_21"] is None
    assert snapshot["asset_class"] == "crypto"
    assert "updated_at" not in snapshot


def test_events_carry_the_versions_that_they_were_made_from(
    database: Database, panel: Panel
) -> None:
    write(database, panel, events_at(panel, database, [3, 5]))
    first, second = read_signals(database, panel.timeframe, ["BTC"]).to_pylist()
    assert first["feature_version"] == "code-1"
    assert (first["params_hash"], first["signal_version"]) == ("hash-1", "v1")
    assert (first["name"], first["symbol"]) == ("ema_9_21", "BTC")
    assert (first["action"], second["action"]) == ("entry", "exit")
    assert first["close"] == panel["close"][3]


def test_a_reversal_is_two_events_of_one_bar_and_the_exit_comes_first(
    database: Database, panel: Panel
) -> None:
    events = events_at(panel, database, [4, 4])
    events = replace(events, is_long=np.array([False, True]), is_entry=np.array([True, False]))
    assert write(database, panel, events) == 2
    stored = read_signals(database, panel.timeframe, ["BTC"]).to_pylist()
    assert [(e["direction"], e["action"]) for e in stored] == [("long", "exit"), ("short", "entry")]


def test_a_rewrite_replaces_the_pairs_that_were_computed_and_no_other(
    database: Database, panel: Panel
) -> None:
    write(database, panel, events_at(panel, database, [3, 5, 25]))
    write(database, panel, events_at(panel, database, [6], signal=2))
    btc_only = states_for(panel, database)[:1]
    write(database, panel, events_at(panel, database, [7]), btc_only)
    stored = read_signals(database, panel.timeframe, ["BTC", "ETH"]).to_pylist()
    assert [(e["symbol"], e["signal_id"], e["ts"].day) for e in stored] == [
        *(("BTC", 1, 8), ("BTC", 2, 7), ("ETH", 1, 6))
    ]


def test_a_pair_that_gives_nothing_any_more_is_emptied(database: Database, panel: Panel) -> None:
    write(database, panel, events_at(panel, database, [3, 5]))
    assert write(database, panel, events_at(panel, database, [])) == 0
    assert read_signals(database, panel.timeframe, ["BTC"]).num_rows == 0


def test_events_before_since_stay(database: Database, panel: Panel) -> None:
    write(database, panel, events_at(panel, database, [3, 5, 9]))
    btc = states_for(panel, database)[0].asset_id
    write(database, panel, events_at(panel, database, [8]), since={(1, btc): int(panel.ts[5])})
    stored = read_signals(database, panel.timeframe, ["BTC"]).to_pylist()
    assert [event["ts"].day for event in stored] == [4, 9]


def test_an_event_without_a_feature_row_fails_and_stores_nothing(
    database: Database, panel: Panel
) -> None:
    write(database, panel, events_at(panel, database, [3]))
    events = events_at(panel, database, [4, 5])
    events.ts[1] += 1_000
    with pytest.raises(StoreError, match=r"1 of 2 signals have no feature row.*2020-01-06"):
        write(database, panel, events)
    stored = read_signals(database, panel.timeframe, ["BTC"]).to_pylist()
    assert [event["ts"].day for event in stored] == [4]


def test_an_event_of_a_pair_that_was_not_computed_is_refused(
    database: Database, panel: Panel
) -> None:
    with pytest.raises(InvalidInput, match="have no SignalState"):
        write(
            database,
            panel,
            events_at(panel, database, [25]),
            states_for(panel, database)[:1],
        )


def test_a_close_that_is_no_price_is_refused(database: Database, panel: Panel) -> None:
    events = events_at(panel, database, [3])
    events.close[0] = np.nan
    with pytest.raises(StoreError, match='null value in column "close"'):
        write(database, panel, events)


def test_the_state_of_each_pair_is_kept(database: Database, panel: Panel) -> None:
    state = states_for(panel, database)[0]
    write(database, panel, events_at(panel, database, [3]), [state])
    held = replace(state, short_since=int(panel.ts[3]))
    write(database, panel, events_at(panel, database, [3]), [held])
    query = sa.text("SELECT id, last_ts, long_since, short_since, params_hash FROM signal_state")
    with database.begin() as connection:
        (row,) = (tuple(row) for row in connection.execute(query))
    assert row[0] == state.asset_id
    assert row[1].isoformat() == "2020-01-20T00:00:00+00:00"
    assert (row[2], row[4]) == (None, "hash-1")
    assert row[3].isoformat() == "2020-01-04T00:00:00+00:00"


def test_a_number_in_a_snapshot_is_compared_as_a_number_through_an_index(
    database: Database, panel: Panel
) -> None:
    write(database, panel, events_at(panel, database, list(range(20))))
    number = "(feature_snapshot->>'rsi_14')::float"
    values = {r: v for r, v in enumerate(panel["rsi_14"][:20].tolist()) if not np.isnan(v)}
    level = sorted(values.values())[len(values) // 2]
    with database.begin() as connection:
        as_numbers = connection.scalar(
            sa.text(f"SELECT count(*) FROM signals WHERE {number} > {level!r}")
        )
        as_text = sa.text(
            "SELECT v, v->>'rsi_14' > '70' FROM (VALUES ('{\"rsi_14\": 8.1}'::jsonb),"
            " ('{\"rsi_14\": 100}'::jsonb)) AS t (v)"
        )
        assert [found for _, found in connection.execute(as_text)] == [True, False]
        connection.execute(sa.text(f"CREATE INDEX by_rsi ON signals (({number}))"))
        connection.execute(sa.text("SET LOCAL enable_seqscan = off"))
        query = f"EXPLAIN SELECT * FROM signals WHERE {number} > {level!r}"
        plan = "\n".join(connection.scalars(sa.text(query)))
    assert as_numbers == sum(v > level for v in values.values()) > 0
    assert "by_rsi" in plan


def test_flags_in_a_snapshot_are_found_through_the_index(database: Database, panel: Panel) -> None:
    write(database, panel, events_at(panel, database, list(range(20))))
    query = (
        "SELECT count(*) FROM signals"
        " WHERE signal_facets(feature_snapshot) @> '{\"ta_is_outlier\": true}'"
    )
    with database.begin() as connection:
        found = connection.scalar(sa.text(query))
        connection.execute(sa.text("SET LOCAL enable_seqscan = off"))
        plan = "\n".join(connection.scalars(sa.text("EXPLAIN " + query)))
    assert found == panel["ta_is_outlier"][:20].sum() > 0
    assert "signals_facets" in plan
