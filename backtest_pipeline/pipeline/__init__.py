"""What one refresh, backtest or rollup does: the only place that joins storage with computing.

Each stage is a pure function over batches (many assets of one timeframe) between a loader and
a store. Dagster's assets, the command line and the Python API are thin shells over this layer.
"""
