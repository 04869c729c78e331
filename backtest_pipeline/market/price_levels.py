"""Which bars lie on the price level around them, and where a series moves to another one.

A market goes from one close to the next open in small steps. A lone bar that is far off and comes
straight back is a damaged row; a step that lasts is a split, another unit or another coin.
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.timeframes import DAY_US

REMARKED_STEP = 3.0
"""From one bar's close to the next one's open, either way; it is told from here on. Of 735,221 bars
of four real data sets the largest is x1.94."""
LASTING_STEP = 5.0
"""From here on a step that lasts parts two assets, and a lone price is damage."""
LARGEST_STEP = 100.0
"""What no market does, also not in the days of a hole: true prices moved by x13 within one day and
by x104 within a week (ANC, May 2022)."""
FEWEST_BARS = 30
"""Bars on another level that make an asset; fewer are damage, as far as anybody can tell yet."""
MOST_LONE_BARS = 3
"""One behind the other that come straight back; more are an episode of their own."""
NEIGHBOURS = 10
"""Bars on either side by which a bar is judged calm."""
FEWEST_BEFORE = 5
"""Of them before it; with fewer nobody can say what is usual."""
CALM_VOLUME, CALM_BODY = 1.7, 5.0
"""Times the median of its neighbours: up to these a bar was calm, and what looks like a wick of
five times the price is damage. The true ones of the real data (the crashes of 2020-03-12 and
2025-10-10, squeezes) had more."""

STRAY = -1


class StepRule(StrEnum):
    """What the settings beside a file say of lasting steps in it."""

    SPLIT = "split"
    """The source did not apply a split: earlier prices are divided by the step."""
    SAME = "same"
    """They are the market's: one asset, below LARGEST_STEP."""


def steps(panel: Panel) -> np.ndarray:
    """Logarithm of each bar's open over the close before it, float64 `(n_rows,)`; 0 at firsts."""
    step = np.zeros(len(panel))
    step[1:] = np.log(panel["open"][1:]) - np.log(panel["close"][:-1])
    step[_firsts(panel)] = 0.0
    return step


def jumps(panel: Panel) -> np.ndarray:
    """The steps of LARGEST_STEP or more, else 0."""
    step = steps(panel)
    return np.where(np.abs(step) >= np.log(LARGEST_STEP), step, 0.0)


def in_words(step: float) -> str:
    """A step as people say it: `10.0 to 1` for a fall to a tenth."""
    factor = float(np.exp(abs(step)))
    return f"{factor:.1f} to 1" if step < 0 else f"1 to {factor:.1f}"


def coins(panel: Panel, rules: dict[str, StepRule] | None = None) -> np.ndarray:
    """For each row to which coin of its ticker it belongs: 0, 1, ..., or STRAY.

    Rows that `lone_bars` names are stray. What is left between two lasting steps is an episode,
    and episodes are never rejoined, whatever their level. An episode of FEWEST_BARS is a coin, in
    the order of time, so that more bars never rename one; a shorter one is stray. Where none has
    so many bars the longest is the ticker's.

    Args:
        panel: bars, sorted and unique, positive prices.
        rules: by asset; without one its lasting steps part assets.
    """
    coin = np.zeros(len(panel), np.int64)
    log = np.log(np.stack([panel[name] for name in ("open", "high", "low", "close")]))
    if not _any_far(log):
        return coin
    for i, asset in enumerate(panel.assets):
        rows = slice(int(panel.offsets[i]), int(panel.offsets[i + 1]))
        if not _any_far(log[:, rows]):
            continue
        start, end = panel.timeframe.period_bounds(panel.ts[rows])
        hole = np.append(0, start[1:] - end[:-1]) / DAY_US
        stray = lone_bars(log[:, rows], _judged_by(panel, rows))
        whole = (rules or {}).get(asset) is not None
        coin[rows] = _coins_of(log[:, rows], hole, stray, whole)
    return coin


def lone_rows(panel: Panel) -> np.ndarray:
    """The rows that `lone_bars` names of each asset; rows without sound prices are none.

    Args:
        panel: bars, sorted and unique.
    """
    lone = np.zeros(len(panel), bool)
    prices = np.stack([panel[name] for name in ("open", "high", "low", "close")])
    sound = np.all((prices > 0) & np.isfinite(prices), axis=0)
    log = np.log(np.where(sound, prices, 1.0))
    for first, last in zip(panel.offsets, panel.offsets[1:], strict=False):
        rows = np.arange(first, last)[sound[first:last]]
        if _any_far(log[:, rows]):
            lone[rows] = lone_bars(log[:, rows], _judged_by(panel, rows))
    return lone


def _judged_by(panel: Panel, rows: np.ndarray | slice) -> np.ndarray | None:
    """The volumes by which wicks are judged; None for bars in which five times is a move."""
    if panel.timeframe.days > 1:
        return None
    return panel["volume"][rows]


def lone_bars(log: np.ndarray, volume: np.ndarray | None) -> np.ndarray:
    """Which bars of one asset are off the level of the bars around them, bool `(n,)`.

    Up to MOST_LONE_BARS are lone where the close before them and the open after them agree, and a
    price of each is LASTING_STEP from both. Of a bar whose open and close are sound, a high or low
    that far off is damage where the bar was calm, else a wick. The last bar is judged by the close
    before it, until the next one tells.

    Args:
        log: logarithms of open, high, low, close, float64 `(4, n)`.
        volume: float64 `(n,)`; None where wicks are not judged.
    """
    n = log.shape[1]
    lone = np.zeros(n, bool)
    calm = np.zeros(n, bool) if volume is None else _calm(log, volume)
    open_, close = log[0], log[3]
    for run in range(1, min(MOST_LONE_BARS, n - 2) + 1):
        before, after = close[: -run - 1], open_[run + 1 :]
        far = np.abs(before - after) < np.log(REMARKED_STEP)
        for k in range(run):
            at = slice(1 + k, n - run + k)
            far &= _far(log[:, at], before, after, calm[at])
        for at in np.flatnonzero(far).tolist():
            if not lone[at] and not lone[at + run + 1]:
                lone[at + 1 : at + 1 + run] = True
    if n > 2 and not lone[-2]:
        # A last bar that opens on its level; one that does not is an episode of its own.
        near = abs(open_[-1] - close[-2]) < np.log(LASTING_STEP)
        lone[-1] = near and _far(log[:, -1:], close[-2:-1], close[-2:-1], calm[-1:])[0]
    return lone


def _far(log: np.ndarray, before: np.ndarray, after: np.ndarray, calm: np.ndarray) -> np.ndarray:
    """Whether bars have a price far from both levels: their open or close, or, if calm, a wick."""
    distance = np.minimum(np.abs(log - before), np.abs(log - after)) >= np.log(LASTING_STEP)
    return distance[[0, 3]].any(axis=0) | (distance[[1, 2]].any(axis=0) & calm)


def _calm(log: np.ndarray, volume: np.ndarray) -> np.ndarray:
    """Which bars moved and traded as those around them did; none of the first FEWEST_BEFORE.

    A market that has just opened finds its price: real first bars are up to a hundredfold wide.
    """
    body = np.abs(log[3] - log[0])
    calm = np.zeros(len(body), bool)
    for row in np.flatnonzero(log[1] - log[2] >= np.log(LASTING_STEP)).tolist():
        near = np.r_[max(row - NEIGHBOURS, 0) : row, row + 1 : row + 1 + NEIGHBOURS]
        near = near[near < len(body)]
        if row < FEWEST_BEFORE:
            continue
        traded = volume[near][np.isfinite(volume[near])]
        usual = np.median(traded) if len(traded) else 0.0
        loud = usual > 0 and volume[row] > CALM_VOLUME * usual
        moved = body[row] > CALM_BODY * np.median(body[near])
        calm[row] = not loud and not moved
    return calm


def _any_far(log: np.ndarray) -> bool:
    """Whether any bar is so wide, or so far from the one before it, that it has to be looked at."""
    near = np.log(LASTING_STEP)
    return bool(np.any(log[1] - log[2] >= near) or np.any(np.abs(log[0, 1:] - log[3, :-1]) >= near))


def _coins_of(log: np.ndarray, hole: np.ndarray, stray: np.ndarray, whole: bool) -> np.ndarray:
    coin = np.full(log.shape[1], STRAY)
    kept = np.flatnonzero(~stray)
    if len(kept) == 0:
        return coin
    step = np.abs(log[0, kept[1:]] - log[3, kept[:-1]])
    # Days without any row; those of the strays between were there.
    missed = np.diff(np.cumsum(hole)[kept])
    lasting = step >= (np.log(LARGEST_STEP) if whole else _limit(missed))
    episode = np.append(0, np.cumsum(lasting))
    lengths = np.bincount(episode)
    grown = np.flatnonzero(lengths >= FEWEST_BARS)
    if len(grown) == 0:
        grown = np.array([lengths.argmax()])
    number = np.full(len(lengths), STRAY)
    number[grown] = np.arange(len(grown))
    coin[kept] = number[episode]
    return coin


def _limit(hole: np.ndarray) -> np.ndarray:
    """Logarithm of the step that parts assets after a hole of so many days."""
    low, high = np.log(LASTING_STEP), np.log(LARGEST_STEP)
    return low + (high - low) * np.minimum(hole, 1.0)


def split_applied(panel: Panel, rules: dict[str, StepRule]) -> Panel:
    """The panel with the lasting steps of the assets that have unapplied splits taken out.

    Prices before a step are multiplied, and volumes divided, by the step's nearest whole ratio.
    """
    wanted = [a for a in panel.assets if rules.get(a) is StepRule.SPLIT]
    if not wanted:
        return panel
    columns = {name: column.copy() for name, column in panel.columns.items()}
    lone = coins(panel, rules) == STRAY
    for asset in wanted:
        rows = np.arange(len(panel))[panel.rows_of(asset)]
        kept = rows[~lone[rows]]
        step = np.log(panel["open"][kept[1:]]) - np.log(panel["close"][kept[:-1]])
        for at in np.flatnonzero(np.abs(step) >= np.log(LASTING_STEP)).tolist():
            ratio = round(float(np.exp(abs(step[at]))))
            factor = float(ratio) if step[at] > 0 else 1.0 / ratio
            earlier = rows[rows < kept[at + 1]]
            for name in ("open", "high", "low", "close"):
                columns[name][earlier] *= factor
            columns["volume"][earlier] /= factor
    return panel.with_columns(columns)


def _firsts(panel: Panel) -> np.ndarray:
    return panel.offsets[:-1][panel.lengths > 0]
