"""Every kind of bad input through the real entrance: a file, then the whole refresh.

One row of POLICIES for each kind: what is skipped and counted, what leaves its partition empty,
and what is refused. The neighbour in the same file is never the worse for it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backtest_pipeline.market.errors import BacktestError, BarsError, InvalidInput, UnknownName
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.price_levels import FEWEST_BARS
from backtest_pipeline.market.symbols import key_of
from backtest_pipeline.pipeline.stages.source_reader import SourceReader
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.sources.files import FileBars
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline_tests.cli.files import PRICES, daily_bars
from backtest_pipeline_tests.conftest import database_like
from backtest_pipeline_tests.pipeline.markets import outcome, refresh
from backtest_pipeline_tests.pipeline.stages.bad_files import (
    POLICIES,
    Bad,
    Frame,
    N,
    file_numbers,
    file_of,
    scaled,
)
from backtest_pipeline_tests.sql import column, scalar


@pytest.fixture(scope="module")
def store(template: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """One store for all: each file's assets have names of their own."""
    for database in database_like(template, "backtest"):
        yield Workspace(database, ArtifactStore(tmp_path_factory.mktemp("artifacts")))


def quality(store: Workspace, asset: str) -> dict[str, int]:
    with store.database.begin() as connection:
        found = connection.execute(
            sa.text(
                "SELECT reason, n_rows FROM data_quality JOIN dim_assets USING (id)"
                " WHERE symbol = :asset AND dataset = 'bars'"
            ),
            {"asset": asset},
        )
        return {row.reason: row.n_rows for row in found}


BARS = "SELECT count(*) FROM cmc_features JOIN dim_assets USING (id) WHERE symbol = :asset"
RUNS = "SELECT count(*) FROM backtest_runs WHERE symbol = :asset AND status = 'completed'"
ODD_METRICS = """
    SELECT count(*) FROM backtest_metrics m JOIN backtest_runs r USING (run_id)
    CROSS JOIN jsonb_each_text(to_jsonb(m) - 'run_id' - 'undefined') AS n
    WHERE symbol = :asset AND n.value IN ('NaN', 'Infinity', '-Infinity')
"""
ODD_FEATURES = """
    SELECT count(*) FROM cmc_features f JOIN dim_assets USING (id)
    CROSS JOIN jsonb_each_text(to_jsonb(f) - 'volume') AS n
    WHERE symbol = :asset AND n.value IN ('NaN', 'Infinity', '-Infinity')
"""


@pytest.mark.parametrize("name", POLICIES)
def test_each_kind_of_bad_input_meets_its_policy(
    store: Workspace, tmp_path: Path, name: str
) -> None:
    bad = POLICIES[name]
    path, damaged, good = file_of(bad, tmp_path)
    partitions = [Partition(damaged, "1D"), Partition(good, "1D")]
    if bad.refused:
        with pytest.raises(BarsError) as refusal:
            refresh(store, FileBars(path), partitions)
        assert bad.refused in str(refusal.value)
        assert (
            scalar(store, "SELECT count(*) FROM dim_assets WHERE symbol = :asset", asset=good) == 0
        )
        return
    reports = refresh(store, FileBars(path), partitions)
    assert quality(store, damaged) == bad.counts
    assert scalar(store, BARS, asset=damaged) == bad.bars
    assert scalar(store, BARS, asset=good) == N
    assert scalar(store, RUNS, asset=good) == 6
    if bad.bars:
        assert scalar(store, RUNS, asset=damaged) == 6
    else:
        status, why = outcome(reports["bars"], partitions[0])
        assert status == "no_input"
        assert f"no complete 1D bar in the 1D bars of files:bars.parquet: {N} 1D rows" in why
    for asset in (damaged, good):
        assert scalar(store, ODD_METRICS, asset=asset) == 0
        assert scalar(store, ODD_FEATURES, asset=asset) == 0


def test_what_is_wrong_with_one_asset_does_not_change_its_neighbour(
    store: Workspace, tmp_path: Path
) -> None:
    path, damaged, good = file_of(POLICIES["nan price"], tmp_path)
    refresh(store, FileBars(path), [Partition(damaged, "1D"), Partition(good, "1D")])
    assert quality(store, good) == {}


def test_rows_in_are_rows_out_and_rows_skipped(store: Workspace, tmp_path: Path) -> None:
    for name in ("nan price", "conflicting duplicates", "one price of 1e308", "gap"):
        bad = POLICIES[name]
        path, damaged, good = file_of(bad, tmp_path)
        given_rows = pd.read_parquet(path)["symbol"].tolist().count(damaged)
        refresh(store, FileBars(path), [Partition(damaged, "1D"), Partition(good, "1D")])
        kept = {"gap", "unsorted", "zero_volume", "missing_volume"}
        skipped = sum(n for r, n in quality(store, damaged).items() if r not in kept)
        assert given_rows == scalar(store, BARS, asset=damaged) + skipped


@pytest.mark.parametrize("n", [1, 2, 5, 15])
def test_few_bars_are_stored_and_what_cannot_be_computed_of_them_is_said(
    store: Workspace, tmp_path: Path, n: int
) -> None:
    path, damaged, good = file_of(Bad(lambda b: b[:n]), tmp_path)
    partition = Partition(damaged, "1D")
    reports = refresh(store, FileBars(path), [partition, Partition(good, "1D")])
    assert scalar(store, BARS, asset=damaged) == n
    assert scalar(store, RUNS, asset=damaged) == (6 if n > 1 else 0)
    assert scalar(store, ODD_METRICS, asset=damaged) == 0
    why = column(
        store,
        "SELECT reason FROM data_quality JOIN dim_assets USING (id)"
        " WHERE symbol = :asset AND dataset = 'backtests'",
        asset=damaged,
    )
    assert why == (["too_few_bars"] if n == 1 else [])
    assert outcome(reports["backtests"], partition)[0] == ("empty" if n == 1 else "stored")


def test_a_timeframe_that_is_longer_than_the_history_is_an_empty_partition(
    store: Workspace, tmp_path: Path
) -> None:
    path, damaged, good = file_of(Bad(lambda b: b), tmp_path)
    partitions = [Partition(damaged, "1Y_CAL"), Partition(good, "1D")]
    reports = refresh(store, FileBars(path), partitions)
    status, why = outcome(reports["bars"], partitions[0])
    assert (status, quality(store, damaged)) == ("empty", {"no_complete_bar": 1})
    assert "no complete 1Y_CAL bar in the 1D bars" in why
    assert scalar(store, RUNS, asset=good) == 6


def test_a_file_with_a_header_alone_is_refused(store: Workspace, tmp_path: Path) -> None:
    daily_bars(1).head(0).to_parquet(tmp_path / "bars.parquet", index=False)
    with pytest.raises(BarsError, match="a header and no rows"):
        refresh(store, FileBars(tmp_path / "bars.parquet"), [Partition("AAA", "1D")])


@pytest.mark.parametrize(
    "symbol",
    ["A\0B", "Ä", "\U0001f680", "A B", "A|B", "A,B", "../A", ".A", "A" * 33, "\uff21", "A/B:C"],
)
def test_a_symbol_that_cannot_be_a_key_is_computed_under_its_own_key(
    store: Workspace, tmp_path: Path, symbol: str
) -> None:
    path, _, good = file_of(Bad(lambda b: b.assign(symbol=symbol)), tmp_path)
    odd = key_of(symbol)
    assert set(FileBars(path).symbols()) == {odd, good}
    with pytest.raises(InvalidInput, match="cannot be a partition key: use 1 to 32 letters"):
        refresh(store, FileBars(path), [Partition(symbol, "1D")])
    refresh(store, FileBars(path), [Partition(odd, "1D"), Partition(good, "1D")])
    assert scalar(store, RUNS, asset=odd) == scalar(store, RUNS, asset=good) == 6
    name = scalar(store, "SELECT name FROM dim_assets WHERE symbol = :asset", asset=odd)
    assert name == symbol.replace("\0", "")


def test_an_asset_that_the_source_has_no_more_fails_alone(store: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "stays.csv"
    daily_bars(N, "STAYS").to_csv(path, index=False)
    reports = refresh(store, FileBars(path), [Partition("GONE", "1D"), Partition("STAYS", "1D")])
    failed = [outcome for report in reports.values() for outcome in report.failed]
    assert {str(outcome.partition) for outcome in failed} == {"GONE|1D"}
    assert "unknown asset 'GONE'" in failed[0].detail
    assert scalar(store, RUNS, asset="STAYS") == 6


def test_unknown_assets_and_timeframes_are_named_with_the_nearest(
    store: Workspace, tmp_path: Path
) -> None:
    path, damaged, _ = file_of(Bad(lambda b: b), tmp_path)
    with pytest.raises(UnknownName, match=f"unknown asset '{damaged}X'; did you mean {damaged}"):
        refresh(store, FileBars(path), [Partition(f"{damaged}X", "1D")])
    with pytest.raises(UnknownName, match="unknown timeframe '1DD'; did you mean 1D"):
        refresh(store, FileBars(path), [Partition(damaged, "1DD")])


def test_what_is_undefined_is_null_in_json(store: Workspace, tmp_path: Path) -> None:
    """NaN is no JSON: a feature that is still warming up when a signal comes is null."""
    path, damaged, good = file_of(Bad(lambda b: b), tmp_path)
    refresh(store, FileBars(path), [Partition(damaged, "1D"), Partition(good, "1D")])
    snapshots = scalar(
        store,
        "SELECT jsonb_agg(feature_snapshot)::text FROM signals JOIN dim_assets USING (id)"
        " WHERE symbol = :asset",
        asset=damaged,
    )

    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} in a snapshot")

    rows_of = json.loads(snapshots, parse_constant=refuse)
    assert len(rows_of) > 5
    assert all(row["ret_log_zscore_365"] is None and row["close"] > 0 for row in rows_of)


def test_the_coins_of_a_reused_ticker_are_computed_each_alone(
    store: Workspace, tmp_path: Path
) -> None:
    """As LUNA in May 2022, and no return of 171,116 times in either of them."""
    later = slice(N - FEWEST_BARS, None)

    def reuse(bars: Frame) -> Frame:
        at = np.arange(len(bars)) >= N - FEWEST_BARS
        factor = np.where(at, 171_116.0, 1.0)
        return bars.assign(**{name: bars[name] * factor for name in PRICES})

    path, luna, good = file_of(Bad(reuse), tmp_path)
    source = FileBars(path)
    assert source.symbols() == (luna, f"{luna}.2", good)
    partitions = [Partition(asset, "1D") for asset in source.symbols()]
    refresh(store, source, partitions)
    assert quality(store, luna) == {"ticker_reused": FEWEST_BARS}
    assert quality(store, f"{luna}.2") == {"later_coin": FEWEST_BARS}
    for asset, n in ((luna, N - FEWEST_BARS), (f"{luna}.2", FEWEST_BARS)):
        assert (scalar(store, BARS, asset=asset), scalar(store, RUNS, asset=asset)) == (n, 6)
        biggest = scalar(
            store,
            "SELECT max(abs(ret_arith)) FROM cmc_features JOIN dim_assets USING (id)"
            " WHERE symbol = :asset",
            asset=asset,
        )
        assert biggest < 1
    traits = scalar(
        store,
        "SELECT string_agg(a.symbol || ' ' || trait || ' ' || related, ', ' ORDER BY a.symbol)"
        " FROM asset_identity JOIN dim_assets a USING (id) WHERE starts_with(symbol, :asset)"
        " AND trait NOT IN ('ended', 'identical')",  # GOOD has the bars before the step
        asset=luna,
    )
    assert traits == f"{luna} ticker_reused {luna}.2, {luna}.2 later_coin {luna}"
    alone = SourceReader(source, [f"{luna}.2"]).resampled("1D", [f"{luna}.2"])
    assert len(alone) == len(daily_bars(N)[later])
    refresh(store, source, partitions)
    assert quality(store, luna) == {"ticker_reused": FEWEST_BARS}


def test_a_later_coin_whose_name_is_taken_is_refused(store: Workspace, tmp_path: Path) -> None:
    n = FEWEST_BARS
    reused = pd.concat([daily_bars(n, "X"), scaled(1e6)(daily_bars(2 * n, "X"))[n:]])
    taken = pd.concat([reused, daily_bars(N, "X.2")])
    taken.to_parquet(tmp_path / "bars.parquet", index=False)
    with pytest.raises(BarsError, match=r"would be called X\.2, but there is an asset of that"):
        refresh(store, FileBars(tmp_path / "bars.parquet"), [Partition("X", "1D")])


numbers = st.one_of(
    st.sampled_from([100.0, 100.0, 101.0, 99.0, 0.0, -1.0, math.nan, math.inf, 1e308, 1e-308]),
    st.floats(1e-3, 1e6),
)
days = st.integers(0, 40).map(
    lambda day: pd.Timestamp("2024-01-01", tz="UTC") + pd.Timedelta(days=day)
)
odd_stamps = st.sampled_from(
    [
        pd.Timestamp("2024-01-05T03:00", tz="UTC"),
        pd.Timestamp("2099-01-01", tz="UTC"),
        pd.Timestamp("1800-01-01", tz="UTC"),
        pd.NaT,
    ]
)
bar = st.tuples(
    st.sampled_from(["A", "A", "B"]),
    st.one_of(days, days, days, days, days, days, days, odd_stamps),
    *[numbers] * 5,
)
frames = st.lists(bar, min_size=1, max_size=40).map(
    lambda found: pd.DataFrame(found, columns=["symbol", "ts", *PRICES, "volume"]).assign(
        ts=lambda frame: pd.to_datetime(frame["ts"], utc=True).astype("datetime64[us, UTC]")
    )
)


@given(frames, st.sampled_from(["parquet", "csv"]))
@settings(
    max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
def test_no_frame_gives_a_foreign_error_or_an_undefined_number(
    store: Workspace, tmp_path: Path, frame: Frame, kind: str
) -> None:
    number = next(file_numbers)
    frame = frame.assign(symbol=frame["symbol"] + str(number))
    path = tmp_path / f"bars.{kind}"
    frame.to_csv(path, index=False) if kind == "csv" else frame.to_parquet(path, index=False)
    partitions = [Partition(f"{name}{number}", tf) for name in "AB" for tf in ("1D", "1W")]
    present = [p for p in partitions if p.asset in set(frame["symbol"])]
    try:
        reports = refresh(store, FileBars(path), present)
    except BacktestError:
        return
    for report in reports.values():
        assert not report.failed
    for asset in {p.asset for p in present}:
        assert scalar(store, ODD_METRICS, asset=asset) == 0
        assert scalar(store, ODD_FEATURES, asset=asset) == 0
