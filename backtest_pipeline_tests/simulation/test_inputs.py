"""What `simulate` refuses: a named error that helps, never a number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from backtest_pipeline.market.errors import BacktestError, InvalidInput, UnknownName
from backtest_pipeline.simulation.batch import simulate_batch
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.pandas_objects.frames import infer_timeframe
from backtest_pipeline.simulation.pandas_objects.many import simulate_book
from backtest_pipeline.simulation.pandas_objects.single import simulate
from backtest_pipeline.trading.costs import CostModel
from backtest_pipeline.trading.sizing import (
    AtrRisk,
    EqualWeight,
    FixedFractional,
    VolatilityScaled,
)
from backtest_pipeline.trading.stops import StopRules
from backtest_pipeline_tests.simulation.markets import bars_of, flags, random_panel

Damage = Callable[[pd.DataFrame], pd.DataFrame]


def good_bars() -> pd.DataFrame:
    return bars_of([100, 101, 102, 103, 104, 105], closes=[101, 102, 103, 104, 105, 106])


def put(column: str, value: float) -> Damage:
    def damage(bars: pd.DataFrame) -> pd.DataFrame:
        bars.loc[bars.index[3], column] = value
        return bars

    return damage


def restamp(change: Callable[[pd.DatetimeIndex], Any]) -> Damage:
    def damage(bars: pd.DataFrame) -> pd.DataFrame:
        return bars.set_index(change(pd.DatetimeIndex(bars.index)))

    return damage


def repeated_column(bars: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([bars, bars[["close"]]], axis=1)


BAD_BARS: dict[str, tuple[Damage, str]] = {
    "NaN price": (put("close", np.nan), r"asset\|1D: close is not a positive .* 2024-01-04"),
    "infinite price": (put("high", np.inf), "high is not a positive number"),
    "zero price": (put("low", 0.0), "low is not a positive number"),
    "negative price": (put("open", -1.0), "open is not a positive number"),
    "high below low": (put("high", 50.0), r"outside low\.\.high at 2024-01-04.*high 50\.0"),
    "close above high": (put("close", 1e6), "outside low..high"),
    "open below low": (put("open", 1.0), "outside low..high"),
    "missing column": (
        lambda bars: bars.drop(columns="low"),
        "no column 'low', only open, high, close;",
    ),
    "capital letters": (
        lambda bars: bars.rename(columns=str.capitalize),
        "no column 'open', only Open, .*rename them to open, high",
    ),
    "repeated column": (repeated_column, "2 columns named 'close'; keep one"),
    "text": (lambda bars: bars.assign(open="dear"), "'open' must be numeric"),
    "naive stamps": (restamp(lambda index: index.tz_localize(None)), "have no time zone"),
    "no stamps": (lambda bars: bars.reset_index(drop=True), "must hold timestamps"),
    "missing stamp": (
        restamp(lambda index: index[:5].append(pd.DatetimeIndex([pd.NaT], tz="UTC"))),
        "NaT",
    ),
    "duplicate stamp": (restamp(lambda index: index[[0, 1, 2, 2, 4, 5]]), "drop duplicates"),
    "unsorted stamps": (restamp(lambda index: index[[0, 1, 3, 2, 4, 5]]), "sort them"),
    "falling stamps": (lambda bars: bars.iloc[::-1], "sort them"),
    "no bars": (lambda bars: bars.iloc[:0], "at least two"),
    "one bar": (lambda bars: bars.iloc[:1], "at least two"),
    "odd spacing": (
        restamp(lambda index: index[0] + (index - index[0]) * 1.1),
        "no shipped timeframe is",
    ),
}


@pytest.mark.parametrize("damage", BAD_BARS)
def test_bad_bars_are_refused_by_name(damage: str) -> None:
    spoil, message = BAD_BARS[damage]
    bars = spoil(good_bars())
    never = pd.Series(False, bars.index)
    with pytest.raises(InvalidInput, match=message):
        simulate(bars, never, never)


@pytest.mark.parametrize("damage", [d for d in BAD_BARS if "spacing" not in d])
def test_bad_bars_are_refused_with_a_given_timeframe_too(damage: str) -> None:
    spoil, message = BAD_BARS[damage]
    bars = spoil(good_bars())
    never = pd.Series(False, bars.index)
    with pytest.raises(InvalidInput, match=message):
        simulate(bars, never, never, timeframe="1D")


def test_bars_that_are_no_data_frame_are_refused() -> None:
    bars: Any = good_bars().to_numpy()
    with pytest.raises(InvalidInput, match="DataFrame, not ndarray"):
        simulate(bars, pd.Series([]), pd.Series([]))


@pytest.mark.parametrize(
    ("signal", "message"),
    [
        (pd.Series([True, False]), r"each of the 6 bars, not shape \(2,\)"),
        (pd.Series(0, good_bars().index), "must be boolean, not int64"),
        (pd.Series(np.nan, good_bars().index), "must be boolean, not float64"),
        (pd.Series([None, *[True] * 5], good_bars().index), "must be boolean, not object"),
        (
            pd.Series([pd.NA, *[True] * 5], good_bars().index, dtype="boolean"),
            "fill missing values",
        ),
        (pd.Series(True, good_bars().index.shift(1)), "different index from the bars"),
        (pd.Series(True, range(6)), "different index from the bars"),
        (pd.DataFrame({"a": True, "b": False}, good_bars().index), r"shape \(6, 2\)"),
    ],
)
@pytest.mark.parametrize("which", ["entries", "exits", "short_entries", "short_exits"])
def test_signals_that_do_not_fit_are_refused_by_name(which: str, signal: Any, message: str) -> None:
    bars = good_bars()
    signals: dict[str, Any] = dict.fromkeys(("entries", "exits"), flags(bars))
    signals["short_entries"] = flags(bars)
    signals[which] = signal
    with pytest.raises(InvalidInput, match=f"^{which} .*{message}"):
        simulate(bars, **signals)


@pytest.mark.parametrize("which", ["entries", "exits"])
def test_long_signals_must_be_given(which: str) -> None:
    bars = good_bars()
    signals: dict[str, Any] = {"entries": flags(bars), "exits": flags(bars), which: None}
    with pytest.raises(InvalidInput, match=f"^{which} .*not NoneType"):
        simulate(bars, **signals)


def test_short_exits_need_short_entries() -> None:
    bars = good_bars()
    with pytest.raises(InvalidInput, match="short_exits without short_entries"):
        simulate(bars, flags(bars), flags(bars), short_exits=flags(bars))


def test_nullable_booleans_and_arrays_are_signals_too() -> None:
    bars = good_bars()
    plain = simulate(bars, flags(bars, 1), flags(bars, 3))
    nullable = simulate(bars, flags(bars, 1).astype("boolean"), flags(bars, 3).astype("boolean"))
    assert nullable.equity.equals(plain.equity)


def test_a_timeframe_longer_than_the_bars_is_refused() -> None:
    bars = bars_of(range(1, 30), freq="h")
    with pytest.raises(InvalidInput, match="the same 1D period"):
        simulate(bars, flags(bars), flags(bars), timeframe="1D")


def test_an_unknown_timeframe_names_its_neighbours() -> None:
    bars = good_bars()
    with pytest.raises(UnknownName, match="did you mean"):
        simulate(bars, flags(bars), flags(bars), timeframe="1DD")


@pytest.mark.parametrize(
    "make",
    [
        lambda: CostModel(fee_bps=-1.0),
        lambda: CostModel(slippage_bps=float("nan")),
        lambda: CostModel(fee_bps=10_000.0),
        lambda: FixedFractional(0.0),
        lambda: SimulationConfig(sizing=FixedFractional(1.5)),
        lambda: CostModel(funding_bps_day=float("inf")),
        lambda: VolatilityScaled(0.0),
        lambda: EqualWeight(0),
        lambda: AtrRisk(risk=1.5),
        lambda: StopRules(stop_loss=0.0),
        lambda: StopRules(trailing=1.0),
        lambda: StopRules(max_bars=0),
        lambda: FixedFractional(float("nan")),
        lambda: SimulationConfig(initial_cash=0.0),
        lambda: SimulationConfig(initial_cash=float("inf")),
    ],
)
def test_assumptions_without_sense_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(InvalidInput, match=r"must .*not "):
        make()


@pytest.mark.parametrize(
    "events", [np.zeros(9, np.uint8), np.zeros((1, 8), np.uint8), np.zeros((1, 9), bool)]
)
def test_a_batch_refuses_signals_of_another_shape_or_type(events: np.ndarray) -> None:
    panel = random_panel(np.random.default_rng(0), [5, 4])
    with pytest.raises(InvalidInput, match=r"uint8 of shape \(runs, 9\)"):
        simulate_batch(panel, events, SimulationConfig())


def test_a_batch_names_the_asset_whose_bars_are_bad() -> None:
    panel = random_panel(np.random.default_rng(0), [5, 0, 4])
    close = panel["close"].copy()
    close[6] = np.nan
    with pytest.raises(InvalidInput, match=r"A2\|1D: close .* 1 such rows"):
        simulate_batch(
            panel.with_columns({"close": close}), np.zeros((1, 9), np.uint8), SimulationConfig()
        )


@pytest.mark.parametrize(
    ("freq", "name"), [("min", "1m"), ("4h", "4H"), ("D", "1D"), ("W-SUN", "1W"), ("15min", "15m")]
)
def test_the_timeframe_is_found_from_the_stamps(freq: str, name: str) -> None:
    index = pd.date_range("2024-01-07", periods=20, freq=freq, tz="UTC")
    assert infer_timeframe(index[[0, 1, 2, 3, 7, 8, 9, 15]]).name == name


def test_a_price_of_another_coin_is_no_return() -> None:
    bars = bars_of([1.0, 1.0, 171_116.0, 171_116.0])
    with pytest.raises(InvalidInput, match="the price jumps 100-fold or more"):
        simulate(bars, flags(bars, 0), flags(bars, 2))


def test_a_timeframe_shorter_than_the_bars_is_refused() -> None:
    bars = good_bars()
    with pytest.raises(InvalidInput, match="no two bars are one 1H period apart"):
        simulate(bars, flags(bars), flags(bars), timeframe="1H")


def test_finer_bars_outside_their_bar_are_refused() -> None:
    bars = bars_of([100.0] * 3)
    finer = bars_of([100.0] * 6, freq="12h")
    finer.loc[finer.index[2], "low"] = 1.0
    with pytest.raises(InvalidInput, match="outside the bar of 1D around it"):
        simulate(bars, flags(bars, 0), flags(bars), finer=finer)


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        (pd.Series([], pd.DatetimeIndex([], tz="UTC"), dtype=float), "no funding rates"),
        (
            pd.Series(1e-4, pd.date_range("2030-01-01", periods=9, freq="8h", tz="UTC")),
            "do not cover all bars",
        ),
        (
            pd.Series(1e-4, pd.date_range("2023-12-31", periods=99, freq="8h", tz="UTC")).drop(
                pd.date_range("2024-01-05", periods=12, freq="8h", tz="UTC")
            ),
            "no funding rates between 2024-01-04T16:00 and 2024-01-09T00:00",
        ),
        (
            pd.Series(10.0, pd.date_range("2023-12-31", periods=99, freq="8h", tz="UTC")),
            "not fractions between -1 and 1",
        ),
    ],
)
def test_funding_that_does_not_cover_the_bars_is_refused(rates: pd.Series, message: str) -> None:
    bars = bars_of([100.0] * 20)
    with pytest.raises(InvalidInput, match=message):
        simulate(bars, flags(bars, 0), flags(bars), funding=rates)


@pytest.mark.parametrize(
    ("assumption", "message"),
    [
        ({"costs": "binance_perp"}, "costs must be CostModel, not 'binance_perp'"),
        ({"sizing": 0.5}, "sizing must be FixedFractional or EqualWeight or .*, not 0.5"),
        ({"stops": {"stop_loss": 0.1}}, "stops must be StopRules, not"),
        ({"initial_cash": "1"}, "initial_cash must be above 0, not '1'"),
        ({"intrabar": "garbage"}, "unknown intrabar order 'garbage'"),
        ({"delay_bars": True}, "delay_bars must be a whole number"),
    ],
)
def test_assumptions_of_the_wrong_kind_are_named(assumption: dict[str, Any], message: str) -> None:
    bars = good_bars()
    with pytest.raises(BacktestError, match=message):
        simulate(bars, flags(bars), flags(bars), **assumption)


def test_whole_numbers_of_numpy_are_whole_numbers() -> None:
    assert StopRules(max_bars=np.int64(5)).max_bars == 5  # pyright: ignore[reportArgumentType]


def test_a_book_names_a_signal_column_that_it_does_not_know() -> None:
    bars = bars_of([100.0] * 5)
    signals = pd.DataFrame(False, bars.index, columns=["entries", "exits", "short_entry"])
    with pytest.raises(UnknownName, match="did you mean short_entries"):
        simulate_book({"A": bars}, {"A": signals})


def test_holding_the_asset_pays_no_funding() -> None:
    bars = bars_of(np.linspace(100.0, 400.0, 400))
    costs = CostModel(funding_bps_day=300.0)
    run = simulate(bars, flags(bars, 0), flags(bars), costs=costs)
    assert run.liquidated
    assert run.metrics["benchmark_return"] == pytest.approx(3.0, abs=0.05)


def test_a_benchmark_that_was_lost_is_still_a_benchmark() -> None:
    bars = bars_of([100.0] * 5)
    lost = pd.Series([1.0, 0.5, 0.0, 0.0, 0.0], bars.index)
    run = simulate(bars, flags(bars, 0), flags(bars), benchmark=lost)
    assert run.metrics["benchmark_return"] == -1.0
