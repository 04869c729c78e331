"""Artifacts of runs: their series, source code and funding rates."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from backtest_pipeline.pipeline.runs.publish import Publication
from backtest_pipeline.simulation.funding import FundingRates
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.artifacts.code_archive import keep_installed_code

_RATES = "rates.parquet"


def keep_files(artifacts: ArtifactStore, published: Publication) -> None:
    """Store the series of runs and the inputs needed to replay them among the artifacts.

    Existing files are kept. Snapshots of the features exist already, since the runs were computed
    from them. The caller's transaction must block removals (as `lock_cells` does) until the rows
    that name the files are committed.
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
    """The artifact uri of a version of funding rates."""
    return f"funding/{version}"


def kept_funding(artifacts: ArtifactStore, version: str, asset: str) -> FundingRates:
    """Stored funding rates of an asset; raises ArtifactCorrupt where they are damaged."""
    table = artifacts.read_table(funding_uri(version), _RATES)
    ts, rate = (np.array(table[name].to_numpy()) for name in ("ts", "rate"))
    return FundingRates({asset: ts}, {asset: rate})
