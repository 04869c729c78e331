"""`walk-forward`: what it shows, stores and refuses."""

from __future__ import annotations

import dagster as dg
import pytest

from backtest_pipeline.defs.instance import open_instance
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline_tests.cli.conftest import CommandLine
from backtest_pipeline_tests.sql import count

TERMS = ("walk-forward", "--signal", "ema", "--asset", "S-ALPHA")
SMALL = (*TERMS, "--fast", "5,9", "--slow", "21,40", "--train", "500", "--test", "250")


def test_a_dry_run_shows_the_folds_and_does_none(cli: CommandLine) -> None:
    answer = cli(*TERMS, "--dry-run")
    assert answer.code == 0, answer.err
    assert "20 folds" in answer.out
    assert "2025-09-06" in answer.out
    planned = cli.json(*TERMS, "--dry-run")
    assert len(planned["folds"]) == 20
    assert planned["folds"][0]["train_start"].startswith("2020-01-01")
    assert count(cli, "walk_forward_folds") == 0


def test_folds_may_be_given_by_their_dates_or_lie_apart(cli: CommandLine) -> None:
    dates = ("2020-01-01:2021-01-01:2021-04-01", "2021-01-01:2022-01-01:2022-04-01")
    given = [part for text in dates for part in ("--dates", text)]
    folds = cli.json(*TERMS, *given, "--dry-run")["folds"]
    assert [fold["test_start"][:10] for fold in folds] == ["2021-01-01", "2022-01-01"]
    apart = cli.json(*TERMS, "--step", "365", "--dry-run")["folds"]
    assert [fold["test_start"][:4] for fold in apart] == ["2020", "2021", "2022", "2023", "2024"]


def test_folds_efficiency_and_verdict_are_shown_and_stored(cli: CommandLine) -> None:
    answer = cli(*SMALL)
    assert answer.code == 0, answer.err
    assert "6 folds, 4 combinations each" in answer.out
    assert "slow 21" in answer.out
    assert "verdict: " in answer.out
    found = cli.json(*SMALL)
    assert found["verdict"] in answer.out
    assert found["n_folds"] == len(found["folds"]) == 6
    assert {fold["n_combinations"] for fold in found["folds"]} == {4}
    assert count(cli, "walk_forward_folds") == 6
    assert count(cli, "backtest_runs WHERE split = 'walk_forward'") == 1
    assert count(cli, "backtest_trades") == found["metrics"]["trade_count"] > 0
    with open_instance(load_settings(), cli.database) as instance:
        asset = dg.AssetKey("walk_forward")
        seen = instance.fetch_observations(asset, limit=9).records
        assert [one.partition_key for one in seen] == ["S-ALPHA|1D"] * 2
        observation = seen[0].asset_observation
        assert observation is not None
        assert observation.metadata["run_id"].value == found["run_id"]
        assert observation.metadata["verdict"].value == found["verdict"]
        assert instance.get_latest_materialization_event(asset) is None


def test_a_walk_forward_is_declared_before_it_is_run(cli: CommandLine) -> None:
    answer = cli(*SMALL, "--declare")
    assert answer.code == 0, answer.err
    assert "declared 20" in answer.out
    assert "a walk-forward of ema_crossover on S-ALPHA 1D" in answer.out
    declaration = cli.json(*SMALL, "--declare")
    assert declaration["params"] == {"fast": [5, 9], "slow": [21, 40]}
    assert count(cli, "trials") == 0
    assert "before its strategy's first trial" in cli(*SMALL).out
    assert cli.json(*SMALL)["declared_at"] == declaration["declared_at"]
    late = cli(*SMALL, "--mode", "rolling", "--declare")
    assert late.code == 1
    assert "what is declared when results are known proves nothing" in " ".join(
        late.message.split()
    )


def test_assumptions_and_the_plan_make_other_runs(cli: CommandLine) -> None:
    answers = [
        cli.json(*SMALL, *more)
        for more in ((), ("--fee-bps", "50"), ("--objective", "composite"), ("--mode", "rolling"))
    ]
    assert len({answer["run_id"] for answer in answers}) == 4
    assert count(cli, "walk_forward_folds") == 24


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--train", "5000"), "more bars are needed"),
        (("--train", "-1"), "train_days must be above 0, not -1.0"),
        (("--step", "30"), "step 30.0 is shorter than test 90"),
        (("--dates", "2020-01-01:2021-01-01"), "dates.0.2 is missing"),
        (("--mode", "roling"), "did you mean rolling"),
        (("--objective", "sharp"), "did you mean sharpe"),
        (("--search", "grdi"), "did you mean grid"),
        (("--max-combinations", "0"), "max_combinations must be at least 1"),
        (("--search", "grid", "--max-combinations", "3"), "are more than 3"),
        (("--fats", "5"), "did you mean fast"),
        (("--fast", "50", "--slow", "5"), "makes sense"),
        (("--fast", "2.5"), "fast"),
    ],
)
def test_what_makes_no_sense_is_refused_and_stores_no_fold(
    cli: CommandLine, arguments: tuple[str, ...], message: str
) -> None:
    answer = cli(*TERMS, *arguments)
    assert answer.code == 1
    assert message in " ".join(answer.message.split())
    assert count(cli, "walk_forward_folds") == 0
