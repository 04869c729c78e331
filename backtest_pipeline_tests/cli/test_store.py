"""What is wrong in itself is told before any store is opened."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from backtest_pipeline.cli.main import main

ON = "--asset S-ALPHA"
BOTH = "--signal ema_9_21 --assets S-ALPHA,S-BETA"
WRONG = {
    f"run --strategy rsi {ON} --start soon": "'soon' is not a date",
    f"run --signal rsi {ON} --start soon": "'soon' is not a date",
    f"run --signal ema_9_21 {ON} --end soon": "'soon' is not a date",
    f"run --signal rsi {ON} --start 2024-02-01 --end 2024-01-01": "is not after its start",
    f"run --signal rsi {ON} --tf 1DD": "unknown timeframe '1DD'",
    f"run --signal rsi {ON} --fee-bps -3": "fee_bps must be at least 0",
    f"run --signal rsi {ON} --stops stop_loss=3x": "stop_loss, line 1, column 1: '3x' is no number",
    f"run --signal rsi {ON} --direction up": "unknown direction 'up'",
    f"run --signal rsi {ON} --sizing atrr:risk=1": "did you mean atr",
    f"run --strategy rsii {ON}": "did you mean rsi",
    f"run --strategy rsi --param periodd=3 {ON}": "did you mean period",
    f"run --signal ema_9_21 --param fast=3 {ON}": "already sets the strategy",
    f"run --signal rsi --preset ema_9_21 {ON}": "give only one of them",
    f"run --signal rsi {ON} --bars /nowhere": "/nowhere: no such file or folder",
    f"run --signal rsi {ON} --bars binance:9h": "unknown interval '9h'",
    f"robustness --signal rsi {ON} --draws 0": "draws must be",
    f"explore ema {ON} --fast 5:x": "neither a number nor a range",
    f"explore ema {ON} --fastt 5:9": "did you mean fast",
    f"explore ema {ON} --metric shrpe": "did you mean sharpe",
    f"explore emma {ON}": "did you mean ema",
    f"walk-forward --signal ema {ON} --fast 9:5": "the range '9:5' is empty",
    f"walk-forward --signal ema {ON} --train-days 0": "train_days must be",
    f"walk-forward --signal ema {ON} --objective shrpe": "did you mean sharpe",
    f"walk-forward --signal ema_9_21 {ON} --start soon": "'soon' is not a date",
    f"portfolio {BOTH} --scheme hrpp": "did you mean hrp",
    f"portfolio {BOTH} --rebalance daily": "unknown rebalance 'daily'",
    f"portfolio {BOTH} --max-weight 3": "max_weight must be",
    "refresh --timeframes 1DD": "unknown timeframe '1DD'",
    "refresh --bars /nowhere": "/nowhere: no such file or folder",
    "leaderboard --scheme balance": "did you mean balanced",
    "leaderboard --tf 1DD": "unknown timeframe '1DD'",
    "leaderboard --limit 0": "--limit",
    "negative-controls --searches 0": "draws must be",
    "negative-controls --bars 1": "n_bars must be at least 2",
    "register-gates x /nowhere.json": "/nowhere.json",
    "look-ahead --timeframes 1DD": "unknown timeframe '1DD'",
    "look-ahead --cuts 0": "--cuts",
    "look-ahead --bars /nowhere": "/nowhere: no such file or folder",
    "restatements --timeframes 1DD": "unknown timeframe '1DD'",
    "retention --days -1": "days must be above 0",
    "replay aaaaaaaa --code x": "unknown code 'x'",
    "runs list --status running": "unfinished work is listed as jobs",
    "runs list --tf 1DD": "unknown timeframe '1DD'",
    "runs list --since soon": "--since",
    "runs list --since 2024-02-01 --until 2024-01-01": "is not after its start",
    "runs list --after xyz": "cursor",
    "jobs list --after xyz": "cursor",
    "runs compare aaaaaaaa aaaaaaaa": "two or more different runs",
    "runs export aaaaaaaa --to x --format csw": "did you mean csv",
    f"trials {ON} --tf 1DD": "unknown timeframe '1DD'",
    "jobs list --since soon": "'soon' is not a date",
    "jobs list --since 2024-02-01 --until 2024-01-01": "is not after its start",
    "jobs list --status done": "status must be one of",
    "jobs list --limit 0": "--limit",
    "jobs show x": "'x' is not a job id",
    "jobs watch x": "'x' is not a job id",
    "jobs cancel x": "'x' is not a job id",
    "jobs resume x": "'x' is not a job id",
    "keys create --name a --role root": "unknown role 'root'",
    "keys create --name a --rate 0": "a key's rate must be",
    "keys create --name a --expires-days -1": "a key's expiry must be",
    "bars pull BTCUSDT --interval 9h": "unknown interval '9h'",
    "bars pull BTCUSDT --start soon": "'soon' is not a date",
    "bars pull BTCUSDT --start 2024-02-01 --end 2024-01-01": "is not after --start",
    "serve --port 99999999": "BACKTEST_SERVICE_PORT",
    "up --port 99999999": "--port",
}


@pytest.mark.parametrize("command", WRONG)
def test_a_wrong_argument_is_told_before_a_store_is_opened(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    home = tmp_path / "home"
    for name in ("BACKTEST_RUN_STORE_MODE", "BACKTEST_POSTGRES_DSN", "BACKTEST_ARTIFACTS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BACKTEST_HOME", str(home))
    monkeypatch.setenv("BACKTEST_BARS", "")
    monkeypatch.setattr(sys, "argv", ["backtest-pipeline", *command.split()])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code in (1, 2)
    assert WRONG[command] in capsys.readouterr().err
    assert not home.exists()
