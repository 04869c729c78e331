from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest_pipeline.plans.vocabulary import Regime
from backtest_pipeline.strategist.regimes import (
    UNKNOWN,
    RegimeSettings,
    book_regimes,
    regime_of,
    symbol_regimes,
)
from backtest_pipeline_tests.strategist.markets import of_closes, random_market, up_to

QUICK = RegimeSettings(volatility_window=60, drawdown_window=60, confirm_bars=1)
N = 320
TREND = np.linspace(0, 2, N)
# A ripple gives volatility a history that has no extreme at its end.
RIPPLE = 0.002 * np.sin(np.arange(N) * 0.7)


def last_regime(log_closes: np.ndarray) -> tuple[Regime | None, bool]:
    code, fallen = symbol_regimes(of_closes({"A": 100 * np.exp(log_closes)}), QUICK)
    return regime_of(int(code[-1])), bool(fallen[-1])


def test_a_rise_is_a_bull_market_a_fall_a_bear_market_and_a_flat_one_a_range() -> None:
    assert last_regime(TREND + RIPPLE) == (Regime.BULL, False)
    assert last_regime(-TREND + RIPPLE) == (Regime.BEAR, True)
    assert last_regime(RIPPLE) == (Regime.RANGE, False)


def test_a_close_against_the_averages_is_mixed() -> None:
    falls = TREND + RIPPLE
    falls[-50:] -= np.linspace(0, 1, 50)
    soon_used = QUICK.model_copy(update={"volatility_window": 20})
    code, _ = symbol_regimes(of_closes({"A": 100 * np.exp(falls)}), soon_used)
    assert regime_of(int(code[-51])) is Regime.BULL
    assert Regime.MIXED in {regime_of(int(c)) for c in code[-20:]}


def test_wilder_days_than_nine_tenths_of_its_own_are_high_volatility() -> None:
    wild = TREND + RIPPLE
    wild[-8:] += 0.1 * (-1) ** np.arange(8)
    assert last_regime(wild)[0] is Regime.HIGH_VOL


def test_nothing_is_known_before_the_slow_average_and_the_window_of_volatility() -> None:
    code, fallen = symbol_regimes(random_market(2, 260), RegimeSettings())
    for first in (0, 260):
        assert (code[first : first + 199] == UNKNOWN).all()
        assert (code[first + 199 : first + 260] != UNKNOWN).all()
        assert not fallen[first : first + 179].any()


def test_a_book_is_in_the_regime_of_more_than_half_of_its_symbols() -> None:
    up, down, flat = (100 * np.exp(sign * TREND + RIPPLE) for sign in (1, -1, 0))
    two_of_three = of_closes({"A": up, "B": up, "C": down})
    assert regime_of(int(book_regimes(two_of_three, QUICK).code[-1])) is Regime.BULL
    none = of_closes({"A": up, "B": down, "C": flat})
    assert regime_of(int(book_regimes(none, QUICK).code[-1])) is Regime.MIXED
    fallen = of_closes({"A": down, "B": down, "C": flat})
    assert book_regimes(fallen, QUICK).fallen[-1]
    assert not book_regimes(two_of_three, QUICK).fallen[-1]


def test_a_regime_is_taken_after_it_held_for_some_bars_in_a_row() -> None:
    panel = random_market(1, 700, seed=5)
    raw = book_regimes(panel, QUICK)
    slow = book_regimes(panel, QUICK.model_copy(update={"confirm_bars": 4}))
    state = 2 * raw.code.astype(int) + raw.fallen
    for i in range(len(state)):
        runs = [j for j in range(3, i + 1) if len(set(state[j - 3 : j + 1].tolist())) == 1]
        expected = state[runs[-1]] if runs else 2 * UNKNOWN
        assert 2 * int(slow.code[i]) + int(slow.fallen[i]) == expected


@settings(max_examples=12)
@given(seed=st.integers(0, 10_000), days=st.integers(1, 420))
def test_what_comes_later_changes_nothing_before(seed: int, days: int) -> None:
    panel = random_market(3, 420, seed)
    whole, part = book_regimes(panel, QUICK), book_regimes(up_to(panel, days), QUICK)
    n = len(part.ts)
    assert (whole.ts[:n] == part.ts).all()
    assert (whole.code[:n] == part.code).all()
    assert (whole.fallen[:n] == part.fallen).all()


def test_the_order_of_symbols_plays_no_part() -> None:
    panel = random_market(5, 400)
    turned = panel.select(panel.assets[::-1])
    one, other = book_regimes(panel, QUICK), book_regimes(turned, QUICK)
    assert (one.code == other.code).all()
    assert (one.fallen == other.fallen).all()


def test_an_instant_knows_the_last_stamp_by_then() -> None:
    regimes = book_regimes(random_market(1, 300), QUICK)
    ts = regimes.ts
    instants = np.array([ts[0] - 1, ts[0], ts[250] + 5, ts[-1] + 10**12])
    code, _ = regimes.at(instants)
    assert code.tolist() == [UNKNOWN, UNKNOWN, regimes.code[250], regimes.code[-1]]


@pytest.mark.parametrize("field", ["volatility_quantile", "trend_band_pct"])
def test_settings_are_bounded(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        RegimeSettings.model_validate({field: 99.0})
