"""A strategy that ranks a universe at each rebalance and holds its ends."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

from backtest_pipeline.market.errors import InvalidInput, UnknownName
from backtest_pipeline.strategies.rules.expressions import (
    ConditionExpression,
    NumberExpression,
    condition_expression,
    number_expression,
)
from backtest_pipeline.trading.bounds import require_number, require_whole

KIND = "cross_section"
"""`kind` of its file, and `kind` and `split` of its runs."""
EQUAL, BY_SCORE, INVERSE_VOLATILITY = "equal", "score", "inverse_volatility"
WEIGHTINGS = (EQUAL, BY_SCORE, INVERSE_VOLATILITY)
LONG, LONG_SHORT = "long", "long_short"
SIDES = (LONG, LONG_SHORT)
CALENDARS = ("weekly", "monthly")
_VOLATILITY = "vol_log_roll_20"
_MOST_BARS = 10_000
_DIGEST_BYTES = 8


@dataclass(frozen=True)
class CrossSection:
    """A cross-sectional strategy; docs/cross-section.md explains each field.

    Attributes:
        name: small letters, digits and `_`.
        score: expression of docs/rules.md, a number at each bar of each asset; the highest are
            held long.
        rebalance: `weekly`, `monthly`, or a number of bars; decided at a close, traded at the next
            open.
        count: assets held on each side; None for those of the outermost quantile.
        quantiles: parts that the ranked assets are divided into, also for returns by quantile.
        side: `long`, or `long_short` with half of the equity on each side.
        weights: `equal`, `score` (in proportion to the distance from the mean score of the
            universe), or `inverse_volatility`.
        volatility: expression that `inverse_volatility` divides by, `vol_log_roll_20` where empty.
        universe: condition that an asset has to meet at the instant of a rebalance, such as
            `mean(close * volume, 20) > 1e6`; empty for none.
        min_history: bars that an asset must have had by then, that bar included.
        horizon: bars that the forward returns of the information coefficients reach.
        delisted_after: missing bars after which a held asset counts as delisted.
        delisting_loss: fraction of its last close that is lost then; 0 is the last close itself.
        tolerance: changes of a weight that are not traded, as a fraction of the equity.
        description: one sentence about it for people.

    Raises:
        InvalidInput, UnknownName: naming the field that is out of bounds.
        RuleError: for an expression that cannot be read, with its place.

    Examples:
        >>> CrossSection("momentum", score="close / shift(close, 20) - 1", count=5).reads
        ('close',)
    """

    name: str
    score: str
    rebalance: str | int = "weekly"
    count: int | None = None
    quantiles: int = 5
    side: str = LONG
    weights: str = EQUAL
    volatility: str = ""
    universe: str = ""
    min_history: int = 1
    horizon: int = 1
    delisted_after: int = 5
    delisting_loss: float = 0.0
    tolerance: float = 0.0
    description: str = ""

    def __post_init__(self) -> None:
        _require_one_of("weights", self.weights, WEIGHTINGS)
        _require_one_of("side", self.side, SIDES)
        if isinstance(self.rebalance, str):
            _require_one_of("rebalance", self.rebalance, CALENDARS)
        else:
            require_whole("rebalance", self.rebalance, least=1)
        if self.count is not None:
            require_whole("count", self.count, least=1)
        require_whole("quantiles", self.quantiles, least=2)
        for name in ("min_history", "horizon", "delisted_after"):
            require_whole(name, getattr(self, name), least=1)
            if getattr(self, name) > _MOST_BARS:
                raise InvalidInput(f"{name} must be at most {_MOST_BARS:,} bars")
        require_number("delisting_loss", self.delisting_loss, least=0, most=1)
        require_number("tolerance", self.tolerance, least=0, below=1)
        for name in ("delisting_loss", "tolerance"):
            # One number has one text in the hash: 0, 0.0 and -0.0 are the same.
            object.__setattr__(self, name, float(getattr(self, name)) + 0.0)
        if self.volatility and self.weights != INVERSE_VOLATILITY:
            raise InvalidInput(
                f"volatility is read only where weights is {INVERSE_VOLATILITY!r}, and it is "
                f"{self.weights!r}; leave volatility out, or change weights"
            )
        _ = self.reads

    @cached_property
    def score_expression(self) -> NumberExpression:
        return number_expression(self.score, f"{self.name}: score")

    @cached_property
    def volatility_expression(self) -> NumberExpression | None:
        """What `inverse_volatility` divides by; None for other weights."""
        if self.weights != INVERSE_VOLATILITY:
            return None
        return number_expression(self.volatility or _VOLATILITY, f"{self.name}: volatility")

    @cached_property
    def universe_expression(self) -> ConditionExpression | None:
        if not self.universe:
            return None
        return condition_expression(self.universe, f"{self.name}: universe")

    @cached_property
    def reads(self) -> tuple[str, ...]:
        """The columns that it reads."""
        parts = (self.score_expression, self.volatility_expression, self.universe_expression)
        return tuple(dict.fromkeys(name for part in parts if part for name in part.reads))

    def document(self) -> dict[str, Any]:
        """All that changes what it computes, as JSON values; expressions in one spelling."""
        said = asdict(self)
        del said["description"], said["name"]
        said["score"] = self.score_expression.spelling
        said["volatility"] = self.volatility_expression and self.volatility_expression.spelling
        if self.universe_expression is not None:
            said["universe"] = self.universe_expression.spelling
        return {name: value for name, value in said.items() if value is not None}

    def differing(self) -> dict[str, Any]:
        """Of `document`, what is not at its default: a field to come then changes no hash.

        Examples:
            >>> CrossSection("strength", "rsi_14", count=5, tolerance=0).differing()
            {'score': 'rsi_14', 'count': 5}
        """
        usual = {field.name: field.default for field in fields(self)} | {"volatility": _VOLATILITY}
        return {name: v for name, v in self.document().items() if v != usual[name]}

    @staticmethod
    def of_document(name: str, document: dict[str, Any]) -> CrossSection:
        """The strategy that `document` was made of."""
        return CrossSection(name, **document)

    @property
    def version(self) -> str:
        """Hash of all that changes what it computes, 16 hex digits."""
        text = json.dumps([self.name, self.differing()], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).hexdigest()


def _require_one_of(field: str, given: object, known: tuple[str, ...]) -> None:
    if given not in known:
        raise UnknownName(f"value of {field}", str(given), known)
