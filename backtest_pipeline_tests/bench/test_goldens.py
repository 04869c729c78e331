"""Golden fingerprints: a number that moves without a raised version fails here."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench import goldens

MOVED = (
    "numbers moved. If that was meant, raise the declared version beside the code that changed "
    "(BARS_VERSION, FEATURES_VERSION, SIGNALS_VERSION, ENGINE_VERSION, METRICS_VERSION, ...; a "
    "strategy's own code needs none) and run `python -m bench.goldens record`"
)


@pytest.mark.parametrize("market", [goldens.sample, goldens.questions])
def test_numbers_are_those_that_were_recorded(market: Callable[[], dict[str, str]]) -> None:
    recorded = goldens.read(market.__name__)
    assert recorded, "nothing is recorded"
    differing = goldens.difference(recorded, market())
    assert not differing, f"{len(differing)} of {len(recorded)} {MOVED}: {differing[:5]}"
