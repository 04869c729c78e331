"""Case `own_rules`: twenty strategies of a user's own in TOML, refreshed as one batch."""

from __future__ import annotations

from pathlib import Path

from bench.bars import daily_bars, write_bars
from bench.clock import Clock
from bench.harness import Report, Table
from bench.store import fresh_store
from bench.universe import TIMEFRAMES, profile_table, refreshed, stages_table

_STRATEGIES = 20
# Crossovers, channels and oscillators, each with numbers of its own.
_RULES = (
    ("crosses_above(ema({n}), ema({m}))", "crosses_below(ema({n}), ema({m}))"),
    ("close > highest(high, {n}, prior=True)", "close < lowest(low, {n}, prior=True)"),
    ("crosses_above(rsi({n}), 30)", "rsi({n}) > 55 or close < ema({m})"),
    ("close < mean(close, {m}) - 2 * std(close, {m}, ddof=0)", "close > mean(close, {n})"),
)


def run(*, quick: bool) -> Report:
    """Measure it."""
    bars, origin = daily_bars(quick=quick)
    with fresh_store() as settings:
        folder = settings.home / "strategies"
        folder.mkdir(mode=0o755)
        for i in range(_STRATEGIES):
            _write(folder, i)
        path, clock = settings.home / "bars.parquet", Clock(settings.home)
        write_bars(bars, path)
        first = refreshed(path, clock, profiled=True)
        again = refreshed(path, clock, profiled=False)
        _write(folder, 0, more=1)
        edited = refreshed(path, clock, profiled=True)
    measured = {"first refresh": first, "nothing changed": again, "one strategy edited": edited}
    return Report(
        "Own rules",
        f"{len(bars['symbol'].unique())} symbols ({origin}, {len(bars):,} daily bars) at "
        f"{', '.join(TIMEFRAMES)}; the presets of {_STRATEGIES} files of rules beside the six of "
        "the store, a fresh embedded store, one round. Then again, and after an edit of one file. "
        "The first refresh and that after the edit are profiled, which slows them a little.",
        [
            Table(
                "Refreshes",
                ["refresh", "wall s", "of the first"],
                [
                    [kind, one.total.wall, f"{one.total.wall / first.total.wall:.1%}"]
                    for kind, one in measured.items()
                ],
            ),
            *(stages_table(kind, [one]) for kind, one in measured.items()),
            profile_table("first refresh", first),
            profile_table("one strategy edited", edited),
        ],
    )


def _write(folder: Path, i: int, more: int = 0) -> None:
    """The file of the strategy with this number, whose periods are a little longer by `more`."""
    entry, exit_ = _RULES[i % len(_RULES)]
    n = 8 + i + more
    periods = {"n": n, "m": 3 * n}
    path = folder / f"own_{i}.toml"
    path.write_text(
        f'name = "own_{i}"\n'
        f'long_entry = "{entry.format(**periods)}"\n'
        f'long_exit = "{exit_.format(**periods)}"\n'
        f"[presets.own_{i}_default]\n"
    )
    path.chmod(0o644)
