"""Requests for jobs that are refused before anything is recorded."""

from __future__ import annotations

import pytest

from backtest_pipeline.market.errors import BadSymbols, GridTooLarge, InvalidInput, UnknownName
from backtest_pipeline.pipeline.jobs.requests import submit
from backtest_pipeline.pipeline.specs import (
    CrossSectionSpec,
    JobSpec,
    PortfolioSpec,
    RefreshSpec,
    RunSpec,
    SweepSpec,
    WalkForwardSpec,
)
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline_tests.sql import count

EMA = RunSpec(symbol="S-ALPHA", strategy="ema", params={"fast": 8, "slow": 30})
WALK = WalkForwardSpec(symbol="S-ALPHA", strategy="ema")
OPTIMIZE = SweepSpec(symbol="S-ALPHA", strategy="ema", params={"fast": [5, 8]})
PORTFOLIO = PortfolioSpec(symbols=["A", "B"], strategy="ema", params=EMA.params)

RANKED = CrossSectionSpec(
    rules='kind = "cross_section"\nname = "strength"\nscore = "close / shift(close, 5)"\ncount = 1',
    timeframe="1W",
)


@pytest.mark.parametrize(
    ("question", "error"),
    [
        (JobSpec(spec=EMA.model_copy(update={"strategy": "nonsense"})), UnknownName),
        (JobSpec(spec=EMA.model_copy(update={"params": {"fast": -1}})), InvalidInput),
        (JobSpec(spec=EMA, timeframes=["9X"]), UnknownName),
        (JobSpec(spec=WALK.model_copy(update={"objective": "luck"})), UnknownName),
        (JobSpec(spec=WALK.model_copy(update={"params": {"speed": 1}})), UnknownName),
        (JobSpec(spec=OPTIMIZE.model_copy(update={"metric": "luck"})), UnknownName),
        (JobSpec(spec=PORTFOLIO.model_copy(update={"scheme": "luck"})), UnknownName),
        (JobSpec(spec=CrossSectionSpec(strategy="luck")), UnknownName),
        (JobSpec(spec=RANKED, timeframes=["9X"]), UnknownName),
        (JobSpec(spec=CrossSectionSpec()), InvalidInput),
        (
            JobSpec(spec=PORTFOLIO.model_copy(update={"weights": {"A": 0.9, "B": 0.9}})),
            InvalidInput,
        ),
        (
            JobSpec(spec=PortfolioSpec(symbols=["A", "A"], strategy="ema", params=EMA.params)),
            BadSymbols,
        ),
        (
            JobSpec(
                spec=SweepSpec(symbol="A", strategy="ema", params={"fast": list(range(1, 999))})
            ),
            GridTooLarge,
        ),
        (
            JobSpec(
                spec=RefreshSpec(
                    symbols=[f"A{i}" for i in range(999)],
                    timeframes=[
                        "1D",
                        "2D",
                        "3D",
                        "1W",
                        "2W",
                        "3W",
                        "4H",
                        "1H",
                        "12H",
                        "1M",
                        "1M_CAL",
                    ],
                )
            ),
            InvalidInput,
        ),
    ],
)
def test_nonsense_is_refused_before_a_job_is_made_of_it(
    workspace: Workspace, question: JobSpec, error: type[Exception]
) -> None:
    with pytest.raises(error):
        submit(workspace.database, question, "quant", most_combinations=500)
    assert count(workspace, "backtest_jobs") == 0
