"""What runs are computed from beside snapshots: the sources, and funding rates, kept with them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from backtest_pipeline.pipeline.identity import Asked
from backtest_pipeline.simulation.funding import FundingRates
from backtest_pipeline.storage.artifacts import ArtifactStore
from backtest_pipeline.storage.code import keep_installed_code

_RATES = "rates.parquet"


def keep_inputs(artifacts: ArtifactStore, asked: Asked, assets: Sequence[str]) -> None:
    """Have among the artifacts what it takes to replay runs on these assets; what is there stays.

    Snapshots of the features are there already, for the runs were computed from them.
    """
    keep_installed_code(artifacts)
    if asked.funding is None:
        return
    for asset in assets:
        table = pa.table({"ts": asked.funding.ts[asset], "rate": asked.funding.rate[asset]})
        uri = funding_uri(asked.funding.version(asset))
        artifacts.put_directory(uri, {_RATES: table}, {"symbol": asset})


def funding_uri(version: str) -> str:
    """Where the rates of a version are kept."""
    return f"funding/{version}"


def kept_funding(artifacts: ArtifactStore, version: str, asset: str) -> FundingRates:
    """Rates that were kept, as those of an asset; raises ArtifactCorrupt where they are damaged."""
    table = artifacts.read_table(funding_uri(version), _RATES)
    ts, rate = (np.array(table[name].to_numpy()) for name in ("ts", "rate"))
    return FundingRates({asset: ts}, {asset: rate})
