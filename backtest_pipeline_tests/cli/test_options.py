"""Options that commands share are read and refused alike by each."""

from __future__ import annotations

from pathlib import Path

import pytest

from backtest_pipeline_tests.cli.conftest import CommandLine

SAMPLE = ("--signal", "ema_9_21", "--asset", "S-ALPHA")
COMMANDS = {
    "run": SAMPLE,
    "robustness": (*SAMPLE, "--tf", "1D"),
    "walk-forward": ("--signal", "ema", "--asset", "S-ALPHA"),
    "portfolio": ("--signal", "ema_9_21", "--assets", "S-ALPHA,S-BETA"),
    "explore": ("ema", "--asset", "S-ALPHA"),
}
LACKING = {
    "walk-forward": {"--benchmark"},
    "portfolio": {"--asset", "--benchmark"},
    "explore": {"--benchmark", "--signal"},
}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--sizing", "fixed:fraction=0"), "fraction must be above 0, not 0"),
        (("--sizing", "fixed:fraction=nan"), "sizing.fraction must be a finite number, not nan"),
        (("--sizing", "fixd"), "unknown sizing 'fixd'; did you mean fixed?"),
        (("--sizing", "atr:rsk=1"), "unknown field 'rsk'; did you mean risk?"),
        (("--stops", "stop_loss=2"), "stop_loss must be above 0 and below 1, not 2"),
        (("--stops", "stop_loss"), "stops: expected name=value, not 'stop_loss'"),
        (
            ("--stops", "stop_loss=2*atr_14/close, stop_loss=0.1"),
            "stops: stop_loss is given twice, as 2*atr_14/close and as 0.1; leave one out",
        ),
        (("--sizing", "atr:risk=0.1,risk=0.2"), "sizing: risk is given twice, as 0.1 and as 0.2"),
        (("--stops", "max_bars=many"), "max_bars must be a number, not 'many'"),
        (("--venue", "binance_prep"), "unknown venue 'binance_prep'; did you mean binance_perp"),
        (("--leverage", "0"), "max_leverage must be above 0, not 0.0"),
        (("--benchmark", "S-BTA"), "unknown benchmark 'S-BTA'; did you mean S-BETA"),
        (("--fee-bps", "-1"), "fee_bps must be at least 0 and below 10,000, not -1.0"),
        (("--slippage-bps", "inf"), "costs.slippage_bps must be a finite number, not inf"),
        (("--direction", "sideways"), "unknown direction 'sideways'; known: both, long, short"),
        (("--direction", "shrt"), "unknown direction 'shrt'; did you mean short?"),
        (("--start", "2024-13-01"), "--start: '2024-13-01' is not a date; write it as 2024-01-31"),
        (("--end", "tomorrow"), "--end: 'tomorrow' is not a date"),
        (
            ("--start", "2024-01-01", "--end", "2023-01-01"),
            "the window's end 2023-01-01 is not after its start 2024-01-01",
        ),
        (("--start", "2024-01-01", "--end", "2024-01-01"), "is not after its start"),
        (("--signal", "ema_9_12"), "unknown strategy or preset 'ema_9_12'; did you mean ema_9_21"),
        (("--asset", "S-ALHPA"), "unknown asset 'S-ALHPA'; did you mean S-ALPHA"),
        (("--tf", "1DD"), "unknown timeframe '1DD'; did you mean 1D"),
    ],
)
def test_arguments_that_make_no_sense_leave_nothing_behind(
    cli: CommandLine, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    before, page = cli.stored(), tmp_path / "sweep.html"
    for command, terms in COMMANDS.items():
        if arguments[0] in LACKING.get(command, ()):
            continue
        more = ("--output", page) if command == "explore" else ()
        answer = cli(command, *terms, *more, *arguments)
        assert (answer.code, answer.out) == (1, ""), command
        assert message in answer.message, command
        assert not page.exists()
    assert cli.stored() == before
