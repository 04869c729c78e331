"""Features: from bars to every column of `cmc_features`, and the EMAs beside it.

Here live the measures, how they are computed over many assets at once, and the list of their
columns. What to do about a feature (signals, filters, sizing) lives elsewhere, and so does the
table. Importing this package is cheap; the compiled kernels come with the first build.
"""

from backtest_pipeline.market.features.build import build_features
from backtest_pipeline.market.features.catalogue import (
    EMA_PERIODS,
    FEATURE_COLUMNS,
    FEATURES,
    FEATURES_VERSION,
    READ_COLUMNS,
    Feature,
)
from backtest_pipeline.market.features.derive import with_indicators
from backtest_pipeline.market.features.resume import resume_features

__all__ = [
    "EMA_PERIODS",
    "FEATURES",
    "FEATURES_VERSION",
    "FEATURE_COLUMNS",
    "READ_COLUMNS",
    "Feature",
    "build_features",
    "resume_features",
    "with_indicators",
]
