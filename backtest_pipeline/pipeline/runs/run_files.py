"""The files of runs: their series, and what they are computed from beside snapshots."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from backtest_pipeline.pipeline.runs.publish import Publication
from backtest_pipeline.simulation.funding import FundingRates
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.artifacts.code_archive import keep_installed_code

_RATES = "rates.parquet"


def keep_files(artifacts: ArtifactStore, published: Publication) -> None:
    """Have among the artifacts the series of runs and what it takes to replay them.

    What is there stays. Snapshots of the features are there already, for the runs were computed
    from them. The caller's transaction holds off removals, as `lock_cells` does, until it has
    committed the rows that name the files.
    """
    keep_installed_code(artifacts)
    funding = published.terms.funding
    if funding is not None:
        for asset in published.runs["symbol"].unique().to_pylist():
            table = pa.table({"ts": funding.ts[asset], "rate": funding.rate[asset]})
            uri = funding_uri(funding.version(asset))
            artifacts.put_directory(uri, {_RATES: table}, {"symbol": asset})
    about = {"runs": published.runs.num_rows, "timeframe": published.runs["tf"][0].as_py()}
    artifacts.put_directory(published.uri, published.files, about)


def funding_uri(version: str) -> str:
    """Where the rates of a version are kept."""
    return f"funding/{version}"


def kept_funding(artifacts: ArtifactStore, version: str, asset: str) -> FundingRates:
    """Rates that were kept, as those of an asset; raises ArtifactCorrupt where they are damaged."""
    table = artifacts.read_table(funding_uri(version), _RATES)
    ts, rate = (np.array(table[name].to_numpy()) for name in ("ts", "rate"))
    return FundingRates({asset: ts}, {asset: rate})
