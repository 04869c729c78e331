"""vectorbt as an engine beside the account: of whole runs, as a cross-check, and for its plots.

The only folder that imports vectorbt, beside `simulation.sweep`; `library` does so, inside a
function, since that import takes about eight seconds of CPU time.
"""
