"""Cross-check of stored results against vectorbt, which is given the same orders."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.runs.identity import config_of
from backtest_pipeline.pipeline.stages.backtests import BacktestsStage, stored_signals
from backtest_pipeline.pipeline.stages.signals import SignalsStage
from backtest_pipeline.pipeline.workspace import Workspace, retried
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.vectorbt_engine import compare_with_vectorbt
from backtest_pipeline.storage.run_tables.run_figures import current_figures

TOLERANCE = 1e-9


@dataclass(frozen=True)
class SecondOpinion:
    """Differences between stored runs and vectorbt.

    Attributes:
        partitions: number of partitions in the sample.
        runs: number of runs compared; runs without trades and liquidated runs are left out.
        worst_size: largest relative difference of a fill's size.
        worst_return: largest relative difference of the growth factor 1 + total_return.
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
    """Run the orders of a sample of stored runs, spread evenly over partitions, in vectorbt.

    Partitions that the next refresh computes again are left out.

    Args:
        workspace: the open store.
        config: simulation settings of the stored runs.
        n_partitions: approximate number of partitions in the sample.

    Raises:
        InvalidInput: for settings that vectorbt does not support (funding, leverage, lots).
        PartitionError: where the stored signals are replaced meanwhile.
    """
    with workspace.database.begin() as connection:
        stored = {
            (run["symbol"], run["tf"], run["signal_name"]): run["total_return"]
            for run in current_figures(connection, ["total_return"])
        }
    everywhere = sorted({Partition(asset, tf) for asset, tf, _ in stored})
    stages = (SignalsStage(workspace), BacktestsStage(workspace, config))
    stale = {partition for stage in stages for partition in stage.stale(everywhere)}
    partitions = [partition for partition in everywhere if partition not in stale]
    chosen = partitions[:: max(1, len(partitions) // n_partitions)]
    runs, worst_size, worst_return, disagreeing = 0, 0.0, 0.0, []
    for tf in dict.fromkeys(partition.timeframe for partition in chosen):
        assets = [partition.asset for partition in chosen if partition.timeframe == tf]
        batch = stored_signals(workspace, chosen).load(tf, assets)
        traded, signals = batch.tradable, batch.stored.signals
        if not traded or not signals:
            continue
        comparison = compare_with_vectorbt(
            batch.traded(range(len(signals)), traded, config),
            config,
            [config_of(signal, config).rules.sizing for signal in signals],
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
