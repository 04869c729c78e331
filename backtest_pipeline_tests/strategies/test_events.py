"""Each strategy's conditions against a loop in plain Python, on small and on random series."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.timeframes import CLOSE_STAMP_US, DAY_US, timeframe
from backtest_pipeline.strategies.registry import strategy_of
from backtest_pipeline.strategies.strategy import conditions_of
from backtest_pipeline.trading.conditions import Conditions
from backtest_pipeline.trading.stops import StopRules
from backtest_pipeline_tests.strategies import by_hand
from backtest_pipeline_tests.strategies.by_hand import Log, log_of

NAN = float("nan")


def panel_of(*assets: dict[str, list[float]]) -> Panel:
    """A daily panel from the columns of each asset."""
    lengths = [len(next(iter(columns.values()))) for columns in assets]
    ts = [19_723 * DAY_US + DAY_US * np.arange(1, n + 1) - CLOSE_STAMP_US for n in lengths]
    return Panel(
        timeframe("1D"),
        tuple(f"A{i}" for i in range(len(assets))),
        np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
        np.concatenate(ts).astype(np.int64),
        {
            name: np.concatenate([np.asarray(columns[name], np.float64) for columns in assets])
            for name in assets[0]
        },
    )


def conditions_with(strategy: str, panel: Panel, **params: Any) -> Conditions:
    definition = strategy_of(strategy)
    return conditions_of(definition, panel, definition.parse(params))


def logged(strategy: str, columns: dict[str, list[float]], **params: Any) -> Log:
    return log_of(conditions_with(strategy, panel_of(columns), **params))


def walk(seed: int, n: int, volatility: float = 0.05) -> dict[str, list[float]]:
    """High, low and close of a random walk in round numbers, so that ties occur."""
    rng = np.random.default_rng(seed)
    close = np.maximum(np.round(100 * np.exp(np.cumsum(rng.normal(0, volatility, n))), 0), 1)
    return {
        "high": (close + rng.integers(0, 4, n)).tolist(),
        "low": np.maximum(close - rng.integers(0, 4, n), 0.5).tolist(),
        "close": close.tolist(),
    }


# EMA crossover


def test_averages_that_cross_enter_one_side_and_leave_the_other() -> None:
    fast = [NAN, 1.0, 2.0, 4.0, 5.0, 3.0, 2.0, 3.0, 4.0]
    slow = [NAN, NAN, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0]
    log = logged("ema_crossover", {"ema_9": fast, "ema_21": slow}, fast=9, slow=21)
    assert log == Log([3, 8], [6], [6], [3, 8])


def test_the_first_values_of_an_average_are_no_cross() -> None:
    log = logged(
        "ema_crossover",
        {"ema_2": [NAN, 5.0, 6.0, 7.0], "ema_3": [NAN, NAN, 3.0, 3.0]},
        fast=2,
        slow=3,
    )
    assert log == Log()


def test_a_cooldown_is_the_accounts_and_leaves_the_conditions_as_they_are() -> None:
    columns = {"ema_2": [1.0, 3.0, 1.0, 3.0, 1.0], "ema_3": [2.0] * 5}
    plain = logged("ema_crossover", columns, fast=2, slow=3)
    assert logged("ema_crossover", columns, fast=2, slow=3, cooldown_bars=5) == plain
    strategy = strategy_of("ema_crossover")
    assert strategy.cooldown(strategy.parse({"cooldown_bars": 5})) == 5


def test_filters_keep_out_entries_alone() -> None:
    columns = {
        "ema_2": [1.0, 3.0, 1.0, 3.0, 1.0],
        "ema_3": [2.0] * 5,
        "rsi_14": [50.0, 49.9, 60.0, 50.0, 40.0],
        "atr_14": [1.0, 1.0, 1.0, 2.0, 0.99],
        "close": [100.0] * 5,
    }
    periods = {"fast": 2, "slow": 3}
    assert logged("ema_crossover", columns, **periods) == Log([1, 3], [2, 4], [2, 4], [1, 3])
    strong = logged("ema_crossover", columns, **periods, rsi_min_long=50.0)
    assert strong == Log([3], [2, 4], [2, 4], [1, 3])
    weak = logged("ema_crossover", columns, **periods, rsi_max_short=40.0)
    assert weak == Log([1, 3], [2, 4], [4], [1, 3])
    lively = logged("ema_crossover", columns, **periods, min_atr_pct=0.01)
    assert lively == Log([1, 3], [2, 4], [2], [1, 3])
    livelier = logged("ema_crossover", columns, **periods, min_atr_pct=0.02)
    assert livelier == Log([3], [2, 4], [], [1, 3])


def test_a_filter_whose_feature_is_not_known_yet_lets_nothing_in() -> None:
    columns = {"ema_2": [1.0, 3.0, 1.0], "ema_3": [2.0] * 3, "rsi_14": [NAN] * 3}
    assert logged("ema_crossover", columns, fast=2, slow=3, rsi_min_long=0.0).long_entry == []


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    fast=st.integers(1, 5),
    more=st.integers(1, 8),
)
def test_crossovers_of_random_walks_agree_with_the_loop(seed: int, fast: int, more: int) -> None:
    columns = walk(seed, 80)
    closes, slow = columns["close"], fast + more
    columns |= {
        f"ema_{fast}": by_hand.ema(closes, fast),
        f"ema_{slow}": by_hand.ema(closes, slow),
        "rsi_14": by_hand.rsi(closes, 14),
    }
    rsi = columns["rsi_14"]
    expected = by_hand.crossover(
        columns[f"ema_{fast}"],
        columns[f"ema_{slow}"],
        lambda t: rsi[t] >= 45.0,
        lambda t: rsi[t] <= 55.0,
    )
    params = {"rsi_min_long": 45.0, "rsi_max_short": 55.0}
    assert logged("ema_crossover", columns, fast=fast, slow=slow, **params) == expected


# RSI mean reversion


def test_an_index_that_comes_back_from_an_extreme_enters() -> None:
    index = [NAN, 29.0, 30.0, 30.0, 31.0, 50.0, 69.0, 70.0, 71.0, 70.0, 69.9, 31.0, 30.0, 29.0]
    log = logged("rsi_mean_revert", {"rsi_14": index}, period=14, lower=30.0, upper=70.0)
    assert log == Log([4], [7, 8, 9], [10], [1, 2, 3, 12, 13])


def test_a_fall_within_the_normal_range_is_no_exit() -> None:
    index = [30.0, 40.0, 39.0, 35.0, 60.0, 55.0]
    log = logged("rsi_mean_revert", {"rsi_14": index}, period=14, lower=30.0, upper=70.0)
    assert log == Log([1], [], [], [0])


def test_each_period_reads_its_own_index() -> None:
    closes = walk(1, 300)["close"]
    columns = {f"rsi_{n}": by_hand.rsi(closes, n) for n in (7, 14, 21)}
    logs = [
        logged("rsi_mean_revert", columns, period=n, lower=30.0, upper=70.0) for n in (7, 14, 21)
    ]
    assert logs == [by_hand.reversion(columns[f"rsi_{n}"], 30, 70) for n in (7, 14, 21)]
    assert len({str(log) for log in logs}) == 3


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    period=st.integers(2, 14),
    lower=st.sampled_from([20.0, 30.0, 45.0]),
    window=st.sampled_from([None, 10, 25]),
)
def test_reversions_of_random_walks_agree_with_the_loop(
    seed: int, period: int, lower: float, window: int | None
) -> None:
    index = by_hand.rsi(walk(seed, 100)["close"], period)
    bounds = {"lower": lower, "upper": 100 - lower}
    log = logged(
        "rsi_mean_revert",
        {f"rsi_{period}": index},
        period=period,
        percentile_window=window,
        **bounds,
    )
    assert log == by_hand.reversion(index, lower, 100 - lower, window)


def test_percentile_bounds_begin_with_the_first_full_window() -> None:
    index = [NAN, *([50.0] * 9), 40.0, 45.0, 46.0, *([50.0] * 5), 90.0, 80.0]
    log = logged(
        "rsi_mean_revert",
        {"rsi_5": index},
        period=5,
        lower=10.0,
        upper=90.0,
        percentile_window=10,
    )
    assert log == by_hand.reversion(index, 10.0, 90.0, 10)
    assert log.long_entry == [11]
    assert log.short_entry[-1] == 19


# Breakout


def breakout_columns(close: list[float]) -> dict[str, list[float]]:
    return {"high": close, "low": close, "close": close}


def test_the_channel_leaves_out_the_bar_that_breaks_it() -> None:
    close = [10.0, 11.0, 12.0, 12.0, 13.0, 12.5, 11.0]
    columns = breakout_columns(close)
    log = logged("atr_breakout", columns, lookback=3, atr_period=14, trail_mult=2.0)
    # 12 equals the channel's top and does not break it; 11 is below 12, 13 and 12.5.
    assert log == Log([4], [6], [6], [4])


def test_the_channel_is_of_highs_and_lows_not_of_closes() -> None:
    close = [10.0, 10.0, 12.0, 12.0, 8.0]
    columns = breakout_columns(close) | {
        "high": [10.0, 13.0, 12.0, 12.0, 12.0],
        "low": [10.0, 10.0, 7.0, 12.0, 8.0],
    }
    log = logged("atr_breakout", columns, lookback=2, atr_period=14, trail_mult=9.0)
    assert log == Log()


def test_a_breakout_that_lasts_is_a_condition_on_every_bar_of_it() -> None:
    columns = breakout_columns([10.0, 10.0, 11.0, 12.0, 13.0, 12.5, 14.0])
    assert logged("atr_breakout", columns, lookback=2).long_entry == [2, 3, 4, 6]


def test_the_trailing_stop_of_a_breakout_is_a_rule_of_the_account() -> None:
    strategy = strategy_of("atr_breakout")
    params = strategy.parse({"atr_period": 20, "trail_mult": 3.0})
    assert strategy.stops(params) == StopRules(trailing_atr=3.0, atr_period=20)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10_000), lookback=st.integers(1, 12))
def test_breakouts_of_random_walks_agree_with_the_loop(seed: int, lookback: int) -> None:
    columns = walk(seed, 90)
    bars = (columns["high"], columns["low"], columns["close"])
    assert logged("atr_breakout", columns, lookback=lookback) == by_hand.breakout(*bars, lookback)


# Bollinger bands and MACD


def smooth_walk(seed: int, n: int) -> dict[str, list[float]]:
    """Closes that are no round numbers, so that rounding decides no comparison."""
    rng = np.random.default_rng(seed)
    return {"close": (100 * np.exp(np.cumsum(rng.normal(0, 0.05, n)))).tolist()}


def test_a_close_that_comes_back_into_its_bands_enters_and_leaves_at_the_middle() -> None:
    close = [10.0, 10.0, 10.0, 10.0, 6.0, 8.0, 9.0, 14.0, 11.0, 9.0]
    log = logged("bollinger_revert", {"close": close}, period=4, width=1.5)
    # 6 lies below 9 - 1.5 x 1.73, and 14 above 9.25 + 1.5 x 2.95.
    assert log == by_hand.band_reversion(close, 4, 1.5)
    assert (log.long_entry, log.short_entry) == ([5], [4, 8])


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    period=st.integers(4, 20),
    width=st.sampled_from([0.9, 1.1, 1.6]),
)
def test_band_reversions_of_random_walks_agree_with_the_loop(
    seed: int, period: int, width: float
) -> None:
    columns = smooth_walk(seed, 100)
    expected = by_hand.band_reversion(columns["close"], period, width)
    assert logged("bollinger_revert", columns, period=period, width=width) == expected


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    fast=st.integers(1, 6),
    more=st.integers(1, 9),
    signal=st.integers(2, 9),
)
def test_macd_crossovers_of_random_walks_agree_with_the_loop(
    seed: int, fast: int, more: int, signal: int
) -> None:
    columns, slow = smooth_walk(seed, 100), fast + more
    expected = by_hand.crossover(*by_hand.macd_and_signal(columns["close"], fast, slow, signal))
    columns |= {f"ema_{n}": by_hand.ema(columns["close"], n) for n in (fast, slow)}
    log = logged("macd_crossover", columns, fast=fast, slow=slow, signal=signal)
    assert log == expected


# All of them

CASES: dict[str, dict[str, Any]] = {
    "ema_crossover": {"fast": 3, "slow": 8, "cooldown_bars": 2, "rsi_min_long": 40.0},
    "rsi_mean_revert": {"period": 7, "lower": 30.0, "upper": 70.0},
    "rsi_mean_revert by percentile": {
        "period": 7,
        "lower": 20.0,
        "upper": 80.0,
        "percentile_window": 20,
    },
    "atr_breakout": {"lookback": 5, "atr_period": 14, "trail_mult": 2.0},
    "bollinger_revert": {"period": 10, "width": 1.5},
    "macd_crossover": {"fast": 3, "slow": 8, "signal": 5},
}


def featured(columns: dict[str, list[float]]) -> dict[str, list[float]]:
    closes = columns["close"]
    return columns | {
        "ema_3": by_hand.ema(closes, 3),
        "ema_8": by_hand.ema(closes, 8),
        "rsi_7": by_hand.rsi(closes, 7),
        "rsi_14": by_hand.rsi(closes, 14),
        "atr_14": by_hand.atr(columns["high"], columns["low"], closes, 14),
    }


def assert_same(ours: Conditions, theirs: Conditions, rows: np.ndarray | slice) -> None:
    for name in ("long_entry", "long_exit", "short_entry", "short_exit"):
        assert np.array_equal(getattr(ours, name)[rows], getattr(theirs, name)), name


@pytest.mark.parametrize("first_bar", [0, 25], ids=["from the start", "warm"])
@pytest.mark.parametrize("case", CASES)
def test_an_asset_has_the_same_conditions_alone_and_in_a_batch(case: str, first_bar: int) -> None:
    lengths = (150, 30, 1, 90, 8, *[40] * 20)
    panel = panel_of(*(featured(walk(seed, n)) for seed, n in enumerate(lengths)))
    # Warm features stand on the first bar, where a neighbour's last ones must not be seen.
    panel = panel.take(np.concatenate([np.arange(n) for n in lengths]) >= first_bar)
    batch = conditions_with(case.split()[0], panel, **CASES[case])
    for name in panel.assets:
        alone = conditions_with(case.split()[0], panel.select([name]), **CASES[case])
        assert_same(batch, alone, panel.rows_of(name))


@pytest.mark.parametrize("case", CASES)
def test_an_asset_without_rows_disturbs_nobody(case: str) -> None:
    panel = panel_of(featured(walk(1, 60)), featured(walk(2, 40)), featured(walk(3, 50)))
    without = panel.take(panel.segment_of_row != 1)
    whole = conditions_with(case.split()[0], panel, **CASES[case])
    assert_same(whole, conditions_with(case.split()[0], without, **CASES[case]),
                       panel.segment_of_row != 1)  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bars_to_come_change_no_condition(case: str) -> None:
    panel = panel_of(featured(walk(5, 120)), featured(walk(6, 70)))
    whole = conditions_with(case.split()[0], panel, **CASES[case])
    position = np.concatenate([np.arange(120), np.arange(70)])
    for cut in (1, 9, 40, 69, 100):
        past = conditions_with(case.split()[0], panel.take(position < cut), **CASES[case])
        assert_same(whole, past, position < cut)


@pytest.mark.parametrize("case", CASES)
def test_each_condition_holds_now_and_then(case: str) -> None:
    log = logged(case.split()[0], featured(walk(8, 400)), **CASES[case])
    for bars in vars(log).values():
        assert 3 < len(bars) < 350


@pytest.mark.parametrize("case", CASES)
def test_a_panel_without_a_feature_is_refused_by_name(case: str) -> None:
    strategy = strategy_of(case.split()[0])
    params = strategy.parse(CASES[case])
    panel = panel_of(featured(walk(1, 30)))
    missing = strategy.columns(params)[-1]
    kept = {name: column for name, column in panel.columns.items() if name != missing}
    bare = Panel(panel.timeframe, panel.assets, panel.offsets, panel.ts, kept)
    with pytest.raises(InvalidInput, match=f"{strategy.name}: .*'{missing}'"):
        conditions_of(strategy, bare, params)
