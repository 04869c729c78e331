"""The judge of the plan in force: what it looks at, and what it asks for."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backtest_pipeline.market.errors import ConfigurationError
from backtest_pipeline.pipeline.planning.book_data import BookData
from backtest_pipeline.pipeline.planning.planned_account import book_path
from backtest_pipeline.pipeline.planning.strategists import live_model
from backtest_pipeline.pipeline.planning.trigger_columns import with_trigger_columns
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.plans.plan import Plan
from backtest_pipeline.plans.vocabulary import Regime, ReplanReason
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.storage.plan_tables.plan_books import PlanBook
from backtest_pipeline.storage.plan_tables.replan_requests import ReplanTrigger
from backtest_pipeline.strategist.history import Follow
from backtest_pipeline.strategist.judge import complaints, score_of
from backtest_pipeline.strategist.known import microseconds_of, stamp_of
from backtest_pipeline.strategist.llm.conversation import printable
from backtest_pipeline.strategist.llm.opinion import Opinion, opinion_of
from backtest_pipeline.strategist.regimes import book_regimes, regime_of
from backtest_pipeline.strategist.replans import PlanRecord, ReplanSettings, due
from backtest_pipeline.strategist.standing import BookPath, Standing

logger = logging.getLogger(__name__)


def follows(
    workspace: Workspace, book: PlanBook, data: BookData, config: SimulationConfig
) -> Follow:
    """How a book fares under plans at its shortest timeframe, by which the judge scores them."""
    batch = data.with_rows(book.timeframes[0])

    def followed(plans: Sequence[Plan]) -> BookPath:
        read = with_trigger_columns(workspace, batch, plans)
        return book_path(read.own.on(read.panel), plans, config)

    return followed


@dataclass(frozen=True)
class JudgedPlan:
    """What the judge says of the plan in force.

    Attributes:
        triggers: the replan that it asks for; empty where it does not.
        opinion: the conversation with the language model that it asked; None where it asked none.
    """

    triggers: tuple[ReplanTrigger, ...] = ()
    opinion: str | None = None


def judged(
    workspace: Workspace,
    book: PlanBook,
    data: BookData,
    record: PlanRecord,
    plans: Sequence[Plan],
    settings: ReplanSettings,
    config: SimulationConfig,
) -> JudgedPlan:
    """What the judge says at the newest bar.

    Args:
        workspace: the open store.
        book, data: the book, and what is stored of its symbols.
        record: the newest plan with its history.
        plans: all plans of the book.
        settings: when it is planned again.
        config: costs and account of the run that is judged.
    """
    judge, instant = settings.judge, data.newest_us
    if judge is None or instant is None:
        return JudgedPlan()
    if instant < microseconds_of(record.plan.effective_ts):
        return JudgedPlan()  # the history ends before the plan by now
    path = follows(workspace, book, data, config)(plans)
    standing = path.standing(microseconds_of(record.plan.effective_ts), instant)
    codes, _ = book_regimes(data.panels[book.timeframes[-1]], judge.regimes).at(np.array([instant]))
    regime, thinks = regime_of(int(codes[0])), None
    heard = ReplanReason.JUDGE_TRIGGERED in due(record, instant, settings, ("whatever it is",))
    if judge.opinion and heard:
        thinks = _opinion(workspace, book, record.plan, standing, regime)
    score = score_of(
        standing, record.plan.regime, regime, judge, opinion=thinks.score if thinks else None
    )
    found, opinion = complaints(standing, score, judge), thinks.transcript if thinks else None
    if ReplanReason.JUDGE_TRIGGERED not in due(record, instant, settings, found):
        return JudgedPlan(opinion=opinion)
    day = stamp_of(instant).date().isoformat()
    reason = ReplanReason.JUDGE_TRIGGERED.value
    if thinks is not None and thinks.score is not None:
        found = (*found, f"opinion of the model {thinks.score:.1f}: {printable(thinks.reason)}")
    return JudgedPlan((ReplanTrigger(book.book_id, reason, day, "; ".join(found)),), opinion)


def _opinion(
    workspace: Workspace, book: PlanBook, plan: Plan, standing: Standing, now: Regime | None
) -> Opinion | None:
    """What the model of the environment thinks of the plan; None where none can be asked."""
    try:
        model = live_model(workspace.database)
    except ConfigurationError as error:
        logger.warning("the judge of plan book %s goes on without an opinion: %s", book.name, error)
        return None
    thinks = opinion_of(model, plan, standing, now)
    if thinks.score is None:
        logger.warning(
            "the judge of plan book %s goes on without an opinion: %s", book.name, thinks.reason
        )
    return thinks
