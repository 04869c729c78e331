"""Features: every column of `cmc_features`, and the EMAs stored beside it, computed from bars.

This package holds the measures, their computation over many assets at once, and the catalogue of
their columns. Signals, filters and sizing, which use features, live elsewhere, and so does the
table. Importing it is cheap; the compiled kernels load with the first build.
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
from backtest_pipeline.market.features.derive import is_given_by_bars, with_indicators
from backtest_pipeline.market.features.resume import resume_features

__all__ = [
    "EMA_PERIODS",
    "FEATURES",
    "FEATURES_VERSION",
    "FEATURE_COLUMNS",
    "READ_COLUMNS",
    "Feature",
    "build_features",
    "is_given_by_bars",
    "resume_features",
    "with_indicators",
]
