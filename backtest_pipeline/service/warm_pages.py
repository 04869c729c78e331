"""Loads the code of pages in the background, so that the first report is as fast as the next."""

import numpy as np

from backtest_pipeline.report.rendering import template_text
from backtest_pipeline.report.rolling_figures import rolling_statistics


def warm_pages() -> None:
    """Import the templates, and load the compiled statistics of a run through time."""
    template_text("run_report.css")
    rolling_statistics(np.linspace(1.0, 2.0, 8), 3)
