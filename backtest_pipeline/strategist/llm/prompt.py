"""What a language model is told and asked: a versioned text, and what is known as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from backtest_pipeline.market.features.derive import with_indicators
from backtest_pipeline.market.panel import OHLCV, Panel
from backtest_pipeline.plans.limits import RiskLimits
from backtest_pipeline.plans.plan import Plan
from backtest_pipeline.strategist.known import BookState, Known, stamp_of
from backtest_pipeline.strategist.proposal import DERIVED
from backtest_pipeline.strategist.regimes import RegimeSettings, book_regimes, regime_of

PLAN_PROMPT = "plan_1"
JUDGE_PROMPT = "judge_1"
_MOST_BARS = 3_000  # of all symbols and timeframes together, so that a question stays payable
_DIGITS = 6


class LlmTerms(BaseModel):
    """What the strategist `llm` is given to plan with, and what it must not exceed.

    Examples:
        >>> LlmTerms(bars=10).ceilings.max_daily_loss_pct
        4.0
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    ceilings: RiskLimits = Field(
        default=RiskLimits(
            max_position_risk_pct=3.0,
            max_symbol_exposure_pct=40.0,
            max_portfolio_exposure_pct=100.0,
            max_daily_loss_pct=4.0,
            max_daily_risk_budget_pct=10.0,
        ),
        description="limits of risk that no plan may exceed, and that hold where it sets none",
    )
    most_triggers: int = Field(default=40, ge=2, le=1_000, description="most triggers of one plan")
    bars: int = Field(
        default=30, ge=1, le=500, description="last bars of each symbol and timeframe to show"
    )
    features: tuple[str, ...] = Field(
        default=("ema_50", "ema_200", "rsi_14", "atr_14"),
        max_length=50,
        description="columns to show beside the bars",
    )
    regimes: RegimeSettings = RegimeSettings()


@cache
def plan_prompt() -> str:
    """What the strategist is told: the versioned text and the JSON Schema of the answer."""
    return f"{_text(PLAN_PROMPT)}\n{json.dumps(_answer_schema(), separators=(',', ':'))}\n"


@cache
def judge_prompt() -> str:
    """What the judge is told."""
    return _text(JUDGE_PROMPT)


def _text(name: str) -> str:
    return (
        resources.files("backtest_pipeline.strategist.llm") / "prompts" / f"{name}.md"
    ).read_text(encoding="utf-8")


def _answer_schema() -> dict[str, Any]:
    """The JSON Schema of a plan without what follows from others, and without prose for Python."""
    schema = Plan.model_json_schema()
    trigger = schema["$defs"]["Trigger"]
    for part, names in ((schema, DERIVED), (trigger, ("id",))):
        for name in names:
            part["properties"].pop(name, None)
        part["required"] = [name for name in part.get("required", ()) if name not in names]
    for part in (schema, *schema["$defs"].values()):
        part.pop("description", None)
    return schema


def question(known: Known, terms: LlmTerms) -> str:
    """What is known, as canonical JSON: the same bars always give the same text.

    Whatever a name or a text holds, it stays within its JSON string: there is no line break and no
    character outside of ASCII.

    Raises:
        InvalidInput: for a feature that does not exist.
    """
    occasion = known.occasion
    n_bars = max(1, min(terms.bars, _MOST_BARS // (len(occasion.symbols) * len(known.panels))))
    longest = known.panels[occasion.timeframes[-1]]
    codes = book_regimes(longest, terms.regimes).code
    regime = regime_of(int(codes[-1])) if len(codes) else None
    return as_json(
        {
            "now": occasion.instant.isoformat(),
            "asked_because": [reason.value for reason in occasion.reasons],
            "valid_for_days": occasion.valid_for.total_seconds() / 86_400,
            "symbols": list(occasion.symbols),
            "timeframes": list(occasion.timeframes),
            "ceilings": terms.ceilings.model_dump(mode="json", exclude_none=True),
            "most_triggers": terms.most_triggers,
            "regime_by_rules": None if regime is None else regime.value,
            "book": None if occasion.book is None else _book(occasion.book),
            "previous_plan": None if occasion.previous is None else occasion.previous.document(),
            "bars": {
                name: _bars(known.panels[name], occasion.symbols, terms.features, n_bars)
                for name in occasion.timeframes
            },
        }
    )


def as_json(value: Any) -> str:
    """Canonical JSON in ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _book(book: BookState) -> dict[str, Any]:
    return {
        "day_return": _number(book.day_return),
        "drawdown": _number(book.drawdown),
    }


def _bars(
    panel: Panel, symbols: tuple[str, ...], features: tuple[str, ...], n_bars: int
) -> Mapping[str, Any]:
    """The last bars of each symbol, the latest last, as rows of numbers under one heading."""
    columns = (*OHLCV, *features)
    panel = with_indicators(panel, columns)
    rows = {}
    for symbol in symbols:
        span = panel.rows_of(symbol)
        last = slice(max(span.start, span.stop - n_bars), span.stop)
        stamps = [stamp_of(int(ts)).isoformat(timespec="minutes") for ts in panel.ts[last]]
        values = np.column_stack([np.asarray(panel[name][last], float) for name in columns])
        rows[symbol] = [
            [stamp, *(_number(value) for value in row)]
            for stamp, row in zip(stamps, values.tolist(), strict=True)
        ]
    return {"columns": ["closes_at", *columns], "rows": rows}


def _number(value: float) -> float | None:
    """A number of few digits, which every machine writes alike; None where undefined."""
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
