from __future__ import annotations

import numpy as np
import pytest

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.strategist.standing import BookPath, Standing

HOUR = 3_600_000_000
DAY = 24 * HOUR
#             22:00  23:00  00:00  01:00  02:00  07:00
TS = np.array([22, 23, 24, 25, 26, 31]) * HOUR
EQUITY = np.array([100.0, 104.0, 102.0, 99.0, 101.0, 98.0])


def path(**changed: object) -> BookPath:
    arrays = {
        "ts": TS,
        "equity": EQUITY,
        "triggered": np.array([1, 0, 2, 1, 0, 3]),
        "blocked": np.array([0, 0, 1, 1, 0, 3]),
        "taken": np.array([1, 0, 1, 0, 0, 0]),
        "closed": np.array([0, 1, 0, 0, 1, 0]),
        "won": np.array([0, 1, 0, 0, 0, 0]),
        **changed,
    }
    return BookPath(**arrays)  # pyright: ignore[reportArgumentType]


def test_a_standing_counts_from_when_the_plan_took_effect() -> None:
    standing = path().standing(23 * HOUR, 31 * HOUR)
    assert standing.plan_return == pytest.approx(98 / 104 - 1)
    assert standing.plan_drawdown == pytest.approx(98 / 104 - 1)
    # The day began with the equity of 23:00, the last stamp before midnight.
    assert standing.day_return == pytest.approx(98 / 104 - 1)
    assert (standing.closed, standing.won) == (1, 0)
    assert (standing.triggered, standing.blocked) == (6, 5)
    # The entry of 00:00 was decided at the close of 23:00; what was due with it is not idle.
    assert (standing.idle_triggers, standing.idle_hours) == (4, 8.0)


def test_what_was_due_where_the_plan_took_effect_is_that_of_the_plan_before() -> None:
    standing = path().standing(24 * HOUR, 25 * HOUR)
    assert (standing.triggered, standing.blocked) == (1, 1)
    assert (standing.idle_triggers, standing.idle_hours) == (1, 1.0)


def test_idle_hours_begin_with_the_plan_where_nothing_was_entered() -> None:
    standing = path().standing(25 * HOUR, 26 * HOUR)
    assert (standing.idle_triggers, standing.idle_hours) == (0, 1.0)
    assert standing.plan_return == pytest.approx(101 / 99 - 1)


def test_what_comes_later_plays_no_part_and_before_the_plan_there_is_nothing() -> None:
    later = path(equity=np.append(EQUITY[:4], [0.5, 0.5]))
    assert later.standing(22 * HOUR, 25 * HOUR) == path().standing(22 * HOUR, 25 * HOUR)
    assert path().standing(40 * HOUR, 41 * HOUR) == Standing()


def test_the_state_of_an_account() -> None:
    state = path().state(25 * HOUR)
    assert state.equity == 99.0
    assert state.day_return == pytest.approx(99 / 104 - 1)
    assert state.drawdown == pytest.approx(99 / 104 - 1)
    assert path().state(22 * HOUR).day_return == 0.0
    with pytest.raises(InvalidInput, match="begins after this instant"):
        path().state(HOUR)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"equity": EQUITY[:2]}, "equity has 2 stamps, not 6"),
        ({"ts": TS[::-1]}, "stamps must be ascending"),
        ({"taken": np.full(6, 2)}, "more entries were blocked and made"),
        ({"won": np.full(6, 1)}, "more trades won than closed"),
    ],
)
def test_a_path_that_contradicts_itself_is_refused(changed: dict, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        path(**changed)
