"""A strategy of a user's own that knows the next close."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent

from backtest_pipeline_tests.own_strategies import own_strategies

PEEKER = dedent("""
    import numpy as np
    import pandas as pd

    from backtest_pipeline.strategies.strategy import Params, Strategy, Conditions


    class Peeker(Params):
        ahead: int = 1


    def _conditions(panel, params):
        later = pd.Series(panel["close"]).groupby(panel.segment_of_row).shift(-params.ahead)
        up = (later >= panel["close"]).to_numpy(bool)
        return Conditions(up, ~up, ~up, up)


    STRATEGY = Strategy("peeker", Peeker, lambda _: ("close",), _conditions)
""")


@contextmanager
def planted(folder: Path, source: str = PEEKER) -> Iterator[None]:
    """The strategy `peeker` is there, with this source."""
    with own_strategies(folder, {"peeker.py": source}):
        yield
