"""Bars from files of any layout that is documented in docs/bars.md."""

from __future__ import annotations

from backtest_pipeline.sources.files.file_bars import FileBars

__all__ = ["FileBars"]
