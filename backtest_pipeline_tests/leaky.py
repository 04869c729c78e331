"""A strategy of a user's own that knows the next close."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent

import backtest_pipeline.strategies as package
from backtest_pipeline.strategies import registry

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


def _forget() -> None:
    for found in (registry.strategies, registry.strategy_hash, registry._modules):
        found.cache_clear()


@contextmanager
def planted(folder: Path, source: str = PEEKER) -> Iterator[None]:
    """The strategy `peeker` is registered, with this source."""
    (folder / "peeker.py").write_text(source)
    package.__path__.append(str(folder))
    _forget()
    try:
        yield
    finally:
        package.__path__.remove(str(folder))
        _forget()
        sys.modules.pop(f"{package.__name__}.peeker", None)
