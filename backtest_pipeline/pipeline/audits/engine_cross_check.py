"""Stored results against another engine: the same orders, replayed by vectorbt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.stages.backtests import stored_signals
from backtest_pipeline.pipeline.workspace import Workspace, retried
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.vectorbt_engine import compare_with_vectorbt
from backtest_pipeline.storage.run_tables.runs import current_runs

TOLERANCE = 1e-9


@dataclass(frozen=True)
class SecondOpinion:
    """How far stored runs and vectorbt are apart.

    Attributes:
        partitions: looked at.
        runs: replayed; those without trades, or liquidated, are not.
        worst_size: largest relative difference of a fill's size.
        worst_return: largest difference of the growth factor 1 + total_return, relative.
        disagreeing: `signal on asset|timeframe` of the runs beyond TOLERANCE.
    """

    partitions: int
    runs: int
    worst_size: float
    worst_return: float
    disagreeing: tuple[str, ...]


@retried
def second_opinion(
    workspace: Workspace, config: SimulationConfig, n_partitions: int = 20
) -> SecondOpinion:
    """Replay a sample of the stored runs, spread evenly over the stored partitions.

    Args:
        workspace: the open store.
        config: what the stored runs assume.
        n_partitions: how many partitions to look at.

    Raises:
        InvalidInput: for assumptions that vectorbt does not know (funding, leverage, lots).
        PartitionError: where the stored signals are not those of the stored features.
    """
    with workspace.database.begin() as connection:
        stored = {
            (run["symbol"], run["tf"], run["signal_name"]): run["total_return"]
            for run in current_runs(connection)
        }
    partitions = sorted({Partition(asset, tf) for asset, tf, _ in stored})
    chosen = partitions[:: max(1, len(partitions) // n_partitions)]
    runs, worst_size, worst_return, disagreeing = 0, 0.0, 0.0, []
    for tf in dict.fromkeys(partition.timeframe for partition in chosen):
        assets = [partition.asset for partition in chosen if partition.timeframe == tf]
        found = stored_signals(workspace, chosen).load(tf, assets)
        traded, signals = found.tradable, found.stored.signals
        if not traded or not signals:
            continue
        comparison = compare_with_vectorbt(
            found.traded(range(len(signals)), traded, config), config
        )
        for column, theirs in zip(comparison.columns.tolist(), comparison.theirs, strict=True):
            signal, asset = signals[column // len(traded)], traded[column % len(traded)]
            growth = 1.0 + stored[asset, tf, signal.name]
            off = float(np.abs(theirs / config.initial_cash / growth - 1.0))
            worst_return = max(worst_return, off)
            if off > TOLERANCE:
                disagreeing.append(f"{signal.name} on {Partition(asset, tf)}")
        runs += len(comparison.columns)
        worst_size = max(worst_size, comparison.worst_size)
    return SecondOpinion(len(chosen), runs, worst_size, worst_return, tuple(disagreeing))
