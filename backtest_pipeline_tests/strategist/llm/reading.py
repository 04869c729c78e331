"""What tests read of an answer."""

from __future__ import annotations

from backtest_pipeline.market.errors import InvalidInput


def whole_number(text: str) -> int:
    """The number that a text is; raises InvalidInput for one that is none."""
    if not text.isdecimal():
        raise InvalidInput(f"{text[:20]} is no number")
    return int(text)
