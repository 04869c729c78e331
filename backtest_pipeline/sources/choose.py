"""Which source a path means."""

from __future__ import annotations

from pathlib import Path

from backtest_pipeline.sources.base import BarSource


def choose_source(path: str) -> BarSource:
    """Files where a path is given, else the synthetic sample market."""
    if path:
        from backtest_pipeline.sources.files import FileBars

        return FileBars(Path(path).expanduser())
    from backtest_pipeline.sources.sample import SampleMarket

    return SampleMarket()
