"""Code versions that cover the user's own strategies, as these are when the code location is built.

An asset's module is imported once in a process, and the strategies of the user's own may change
afterwards; so these versions are not declared there.
"""

from __future__ import annotations

import dagster as dg

from backtest_pipeline.pipeline.versions import (
    all_runs_code,
    all_signals_code,
    all_walk_forwards_code,
    negative_controls_code,
)
from backtest_pipeline.storage.provenance import combined
from backtest_pipeline.strategies.registry import strategies

_CODES = {
    "signals": all_signals_code,
    "backtests": all_runs_code,
    "walk_forward": all_walk_forwards_code,
    "negative_controls": negative_controls_code,
}


def with_code_of_strategies(declared: dg.Definitions) -> dg.Definitions:
    """The definitions, with the code versions of assets that are computed from strategies.

    Such a version is in each event of each partition, so it has one hash of all strategies; the
    metadata of the asset has that of each.
    """

    def with_code(spec: dg.AssetSpec) -> dg.AssetSpec:
        code = _CODES.get(spec.key.path[-1])
        if code is None:
            return spec
        parts = code().split(", ")
        declares = len(parts) - len(strategies())
        own = ", ".join(parts[declares:])
        short = [*parts[:declares], f"strategies {combined(own)[:16]}"]
        return spec.replace_attributes(
            code_version=", ".join(short), metadata={**spec.metadata, "strategies": own}
        )

    return declared.map_asset_specs(func=with_code)
