"""Twelve specs through every door, each on a store of its own, give one id and one JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from starlette.testclient import TestClient

import backtest_pipeline as bp
from backtest_pipeline.definitions import build_definitions
from backtest_pipeline.pipeline.jobs.requests import submit
from backtest_pipeline.pipeline.specs import JobSpec, spec_of
from backtest_pipeline.service.app import build_app
from backtest_pipeline.service.settings import load_service_settings
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline.storage.tables.api_keys import create_key
from backtest_pipeline.storage.tables.jobs import Claim, read_job, unit_results
from backtest_pipeline_tests.cli.conftest import CommandLine
from backtest_pipeline_tests.conftest import database_like

WEEKLY = {"symbol": "S-ALPHA", "timeframe": "1W"}
W = ("--asset", "S-ALPHA", "--tf", "1W")
MONTHS = [f"{y}-{m:02}-01T00:00:00Z" for y in range(2020, 2027) for m in range(1, 13)]
RATES: list[tuple[str, float]] = [
    ("2019-12-01T00:00:00Z", 0.0),
    *((month, 1e-3) for month in MONTHS),
]
RULES = """name = "up"
long_entry = "close > ema_21"
long_exit = "close < ema_21"
"""
RANKED = """kind = "cross_section"
name = "strength"
score = "close / shift(close, 4) - 1"
count = 1
"""
Spec = dict[str, Any]
QUESTIONS: list[tuple[str, Spec, tuple[str, ...]]] = [
    ("run", {**WEEKLY, "timeframe": "1w"}, ("run", "--asset", "S-ALPHA", "--tf", "1w")),
    ("run", {**WEEKLY, "strategy": "rsi"}, ("run", *W, "--signal", "rsi")),
    ("run", {**WEEKLY, "preset": "ema_21_50"}, ("run", *W, "--preset", "ema_21_50")),
    (
        "run",
        {**WEEKLY, "strategy": "ema_crossover", "params": {"fast": 5, "slow": 13}},
        ("run", *W, "--strategy", "ema_crossover", "--param", "fast=5", "--param", "slow=13"),
    ),
    (
        "run",
        {
            **WEEKLY,
            "strategy": "atr",
            "start": "2021-01-01",
            "end": "2025-01-01",
            "costs": {"venue": "binance_perp", "slippage_bps": 2.0},
            "initial_cash": 5000.0,
            "risk_free": 0.0001,
            "intrabar": "target_first",
            "delay_bars": 1,
            "benchmark": "S-BETA",
        },
        (
            *("run", *W, "--signal", "atr", "--start", "2021-01-01", "--end", "2025-01-01"),
            *("--venue", "binance_perp", "--slippage-bps", "2", "--initial-cash", "5000"),
            *("--risk-free", "0.0001", "--intrabar", "target_first", "--delay-bars", "1"),
            *("--benchmark", "S-BETA"),
        ),
    ),
    (
        "run",
        {
            **WEEKLY,
            "strategy": "bollinger",
            "direction": "long",
            "max_leverage": 2.0,
            "sizing": {"mode": "volatility", "target": 0.8},
            "stops": {"stop_loss": 0.1, "max_bars": 20},
        },
        (
            *("run", *W, "--strategy", "bollinger", "--direction", "long", "--leverage", "2"),
            *("--sizing", "volatility:target=0.8", "--stops", "stop_loss=0.1,max_bars=20"),
        ),
    ),
    ("run", {**WEEKLY, "funding": {"S-ALPHA": RATES}}, ("run", *W, "--funding", "{funding}")),
    ("run", {**WEEKLY, "rules": RULES}, ("run", *W, "--rules", "{rules}")),
    (
        "walkforward",
        {
            **WEEKLY,
            "strategy": "ema",
            "params": {"fast": [3, 5], "slow": [13, 21]},
            "train_days": 400.0,
            "test_days": 200.0,
        },
        (
            *("walk-forward", *W, "--strategy", "ema", "--param", "fast=3,5"),
            *("--slow", "13,21", "--train", "400", "--test", "200"),
        ),
    ),
    (
        "optimize",
        {**WEEKLY, "strategy": "ema", "params": {"fast": [3, 5], "slow": [13, 21]}, "top": 3},
        ("explore", "ema", *W, "--fast", "3,5", "--slow", "13,21", "--top", "3"),
    ),
    (
        "portfolio",
        {"symbols": ["S-ALPHA", "S-BETA"], "timeframe": "1W", "preset": "ema_9_21"},
        ("portfolio", "--assets", "S-ALPHA,S-BETA", "--tf", "1W", "--preset", "ema_9_21"),
    ),
    (
        "cross_section",
        {"rules": RANKED, "timeframe": "1W", "start": "2021-01-01", "costs": {"fee_bps": 7.0}},
        (
            *("cross-section", "run", "--rules", "{ranked}", "--tf", "1W"),
            *("--start", "2021-01-01", "--fee-bps", "7"),
        ),
    ),
]


@pytest.fixture
def fresh(
    template: Database, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], Database]]:
    """Opens stores of their own, one after the other, as the environment."""
    opened: list[Iterator[Database]] = []

    def new() -> Database:
        opened.append(database_like(template, "backtest"))
        database, folder = next(opened[-1]), tmp_path_factory.mktemp("door")
        for name, value in {
            "BACKTEST_RUN_STORE_MODE": "postgres",
            "BACKTEST_POSTGRES_DSN": database.conninfo,
            "BACKTEST_HOME": str(folder / "home"),
            "BACKTEST_ARTIFACTS_URL": str(folder / "artifacts"),
            "BACKTEST_BARS": "",
            "DAGSTER_HOME": "",
        }.items():
            monkeypatch.setenv(name, value)
        return database

    yield new
    for database in opened:
        next(database, None)


def test_twelve_specs_come_to_the_same_through_every_door(
    fresh: Callable[[], Database],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    specs = [{"kind": kind, **spec} for kind, spec, _ in QUESTIONS]
    fresh()
    expected = [bp.execute(spec).model_dump(mode="json") for spec in specs]
    ids = {json.dumps(one.get("run_id") or one.get("portfolio_id")) for one in expected}
    assert len(ids) == 11 + 1  # a sweep has none of its own

    cli = CommandLine(fresh(), tmp_path, monkeypatch, capsys)
    assert by_command_line(cli, tmp_path) == expected
    assert by_http(fresh(), specs) == expected
    assert as_dagster_runs(fresh(), specs) == expected
    assert as_jobs(fresh(), specs) == expected


def by_command_line(cli: CommandLine, folder: Path) -> list[Any]:
    rates = folder / "rates.csv"
    rates.write_text("symbol,ts,rate\n" + "".join(f"S-ALPHA,{ts},{r}\n" for ts, r in RATES))
    rules = folder / "up.toml"
    rules.write_text(RULES)
    ranked = folder / "strength.toml"
    ranked.write_text(RANKED)
    files = {"{funding}": str(rates), "{rules}": str(rules), "{ranked}": str(ranked)}
    found = []
    for kind, _, words in QUESTIONS:
        own = ["--no-bands"] if kind == "run" else []
        own += ["--output", str(folder / "sweep.html")] if kind == "optimize" else []
        told = cli(*(files.get(word, word) for word in words), *own, "--json")
        assert told.code == 0, told.err
        found.append({n: v for n, v in json.loads(told.out).items() if n != "page"})
    return found


def by_http(database: Database, specs: list[Spec]) -> list[Any]:
    with database.begin() as connection:
        key = create_key(connection, "ann", "runner", 1_000_000)
    service = load_service_settings(optimizer_max_concurrency=1)
    with TestClient(build_app(load_settings(), service), base_url="http://localhost") as client:
        answers = [
            client.post(
                f"/backtest/{spec['kind'].replace('_', '-')}",
                json=spec,
                headers={"Authorization": f"Bearer {key}"},
            )
            for spec in specs
        ]
    assert [answer.status_code for answer in answers] == [200] * len(specs), answers[0].text
    return [answer.json() for answer in answers]


def as_dagster_runs(_: Database, specs: list[Spec]) -> list[Any]:
    found = []
    with dg.DagsterInstance.ephemeral() as instance:
        job = build_definitions().resolve_job_def("execute")
        for spec in specs:
            config = {"ops": {"execute_spec": {"config": {"spec": spec}}}}
            run = job.execute_in_process(config, instance=instance)
            (output,) = run.filter_events(lambda e: e.is_successful_output)
            found.append(output.step_output_data.metadata["result"].value)
    return found


def as_jobs(database: Database, specs: list[Spec]) -> list[Any]:
    found = []
    with dg.DagsterInstance.ephemeral() as instance:
        requested = build_definitions().resolve_job_def("requested")
        for spec in specs:
            job = submit(database, JobSpec(spec=spec_of(spec)), "ann", most_combinations=500)
            claim = Claim(job.job_id, 1, "")
            config = {"job_id": str(claim.job_id), "attempt": claim.attempt}
            requested.execute_in_process(
                {"ops": {"work_on_job": {"config": config}}}, instance=instance
            )
            with database.begin() as connection:
                assert read_job(connection, job.job_id).status == "completed"
                (unit,) = unit_results(connection, job.job_id).values()
            found.append(unit["result"])
    return found
