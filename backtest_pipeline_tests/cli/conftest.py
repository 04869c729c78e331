"""A command line in this process, on a database and folders of its own."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from backtest_pipeline.cli.main import main
from backtest_pipeline.storage.postgres.database import Database

TABLES = (
    *("dim_assets", "dataset_versions", "data_quality", "cmc_features", "signals"),
    *("backtest_runs", "backtest_trades", "backtest_metrics", "portfolio_runs"),
    *("portfolio_weights", "portfolio_strategy_weights", "run_robustness"),
)


@dataclass(frozen=True)
class Answer:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What was printed as JSON, which knows no NaN."""
        return json.loads(self.out, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))

    @property
    def message(self) -> str:
        """The error alone, without the progress before it."""
        _, _, message = self.err.partition("error: ")
        return message.strip()


@dataclass(frozen=True)
class CommandLine:
    """Runs commands against one store."""

    database: Database
    folder: Path
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str | Path) -> Answer:
        self.monkeypatch.setattr(sys, "argv", ["backtest-pipeline", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as leave:
            code = int(leave.code or 0)
        captured = self.capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    def json(self, *arguments: str | Path) -> Any:
        """What a command that succeeds prints with `--json`."""
        answer = self(*arguments, "--json")
        assert answer.code == 0, answer.err
        return answer.json

    def stored(self) -> dict[str, str]:
        """A hash of the rows of each table."""
        with self.database.begin() as connection:
            return {
                table: str(
                    connection.scalar(
                        sa.text(
                            f"SELECT md5(string_agg(t::text, '' ORDER BY t::text)) FROM {table} t"
                        )
                    )
                )
                for table in TABLES
            }


@pytest.fixture
def database(dagster_database: Database) -> Database:
    """A migrated database of its own, as after a first command that told Dagster something."""
    return dagster_database


@pytest.fixture
def cli(
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> CommandLine:
    """The command line on a migrated database of its own."""
    settings = {
        "BACKTEST_RUN_STORE_MODE": "postgres",
        "BACKTEST_POSTGRES_DSN": database.conninfo,
        "BACKTEST_HOME": str(tmp_path / "home"),
        "BACKTEST_ARTIFACTS_URL": str(tmp_path / "artifacts"),
        "BACKTEST_BARS": "",
        "DAGSTER_HOME": "",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return CommandLine(database, tmp_path, monkeypatch, capsys)
