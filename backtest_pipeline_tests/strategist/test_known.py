from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.plans.plan import plan_from
from backtest_pipeline.plans.vocabulary import ReplanReason
from backtest_pipeline.strategist.known import Known, known_at, microseconds_of
from backtest_pipeline_tests.plans.examples import PLAN
from backtest_pipeline_tests.strategist.markets import random_market

PANEL = random_market(3, 40)
HOURS = random_market(3, 40 * 24, tf="1H")


def known(instant: int, **given: object) -> Known:
    given = {"reasons": (ReplanReason.MANUAL,), "valid_for": timedelta(days=7), **given}
    return known_at({"1D": PANEL, "1H": HOURS}, instant, **given)  # pyright: ignore[reportArgumentType]


def test_nothing_later_than_the_instant_is_in_it_nor_reached_through_it() -> None:
    instant = int(PANEL.ts[10]) + 7_200_000_000
    cut = known(instant).panels
    for name, panel in cut.items():
        assert panel.ts.max() <= instant
        assert len(panel) == 3 * (11 if name == "1D" else 11 * 24 + 2)
        for column in (panel.ts, *panel.columns.values()):
            base = column if column.base is None else column.base
            assert base.size <= len(panel)


def test_the_instant_is_that_of_the_last_bar_that_is_known() -> None:
    occasion = known(int(PANEL.ts[10]) + 5_400_000_000).occasion
    assert occasion.instant_us == int(PANEL.ts[10]) + 3_600_000_000
    assert microseconds_of(occasion.instant) == occasion.instant_us
    assert occasion.timeframes == ("1H", "1D")
    assert occasion.symbols == ("S-0", "S-1", "S-2")


def test_what_cannot_be_known_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no symbol has a bar by then"):
        known(int(HOURS.ts[0]) - 1)
    with pytest.raises(InvalidInput, match="saw data up to 2024-01-31"):
        known(int(PANEL.ts[10]), previous=plan_from({**PLAN, "triggers": []}))
    with pytest.raises(InvalidInput, match="no timeframe"):
        known_at({}, 0, reasons=(), valid_for=timedelta(1))
    with pytest.raises(InvalidInput, match="S-2; give each timeframe the same symbols"):
        known_at(
            {"1D": PANEL, "1H": HOURS.select(["S-0", "S-1"])},
            int(np.max(PANEL.ts)),
            reasons=(),
            valid_for=timedelta(1),
        )
