"""Progress on stderr."""

from __future__ import annotations

import io

from rich.console import Console

from backtest_pipeline.cli.progress import SILENCE_S, StageLines, progress_on


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_stage_is_told_when_it_begins_and_when_it_ends() -> None:
    told: list[str] = []
    clock = Clock()
    lines = StageLines(told.append, clock)
    lines("bars", 0, 3)
    clock.now += 1
    lines("bars", 2, 3)
    clock.now += 0.25
    lines("bars", 3, 3)
    lines("bars", 3, 3)
    lines("features", 3, 3)
    assert told == [
        "bars: started, 3 to do",
        "bars: 3 of 3 done in 1.2 s",
        "features: 3 of 3 done in 0.0 s",
    ]


def test_a_stage_that_begins_again_is_told_again() -> None:
    told: list[str] = []
    lines = StageLines(told.append, Clock())
    for done in (0, 2, 0, 2):
        lines("bars", done, 2)
    assert told == ["bars: started, 2 to do", "bars: 2 of 2 done in 0.0 s"] * 2


def test_silence_is_broken_in_a_stage_and_between_stages() -> None:
    told: list[str] = []
    clock = Clock()
    lines = StageLines(told.append, clock)
    clock.now += SILENCE_S
    lines.print_if_silent()
    lines("bars", 0, 3)
    clock.now += SILENCE_S / 2
    lines.print_if_silent()
    lines("bars", 1, 3)
    clock.now += SILENCE_S / 2
    lines.print_if_silent()
    lines("bars", 3, 3)
    clock.now += SILENCE_S
    lines.print_if_silent()
    assert told == [
        "working, 1.5 s since the start",
        "bars: started, 3 to do",
        "bars: 1 of 3 after 1.5 s",
        "bars: 3 of 3 done in 1.5 s",
        "working, 3.0 s since bars",
    ]


def test_a_terminal_gets_a_bar_for_each_stage() -> None:
    drawn = io.StringIO()
    console = Console(file=drawn, force_terminal=True, width=100, color_system=None)
    with progress_on(console) as listen:
        listen("bars", 0, 2)
        listen("bars", 2, 2)
        listen("signals", 1, 2)
    last = drawn.getvalue().splitlines()
    assert any("bars" in line and "2/2" in line for line in last)
    assert any("signals" in line and "1/2" in line for line in last)


def test_no_terminal_gets_plain_lines() -> None:
    written = io.StringIO()
    with progress_on(Console(file=written, width=100)) as listen:
        listen("[bars]", 0, 1)
        listen("[bars]", 1, 1)
    assert written.getvalue().splitlines()[0] == "[bars]: started, 1 to do"
    assert "\x1b" not in written.getvalue()
