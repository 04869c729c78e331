"""Whether a strategy's signals use bars that come after them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from backtest_pipeline.market.errors import LooksAhead
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.simulation.windows import events_by_params
from backtest_pipeline.strategies.base import Strategy

_PROBES = 24


def require_no_look_ahead(
    panel: Panel, strategy: Strategy[Any], params: Mapping[str, Any], asset: str
) -> None:
    """Take away the bars after some of the signals: each signal must still be there.

    A strategy that looks ahead looks as good out of sample as in sample, so that no comparison
    of the two shows it. The probes are spread evenly over the asset's signals; each history ends
    with the bar of its signal, and all are computed at once.

    Args:
        panel: bars, with the features that are not computed from them here.
        strategy, params: what to probe.
        asset: on whose bars.

    Raises:
        LooksAhead: with the share of the probed signals that changed.
    """
    rows = panel.rows_of(asset)
    whole = events_by_params(panel.select([asset]), strategy, [params])[0]
    given = np.flatnonzero(whole)
    if len(given) == 0:
        return
    probes = given[np.unique(np.linspace(0, len(given) - 1, _PROBES).astype(int))]
    histories = panel.windows([slice(rows.start, rows.start + int(at) + 1) for at in probes])
    known_then = events_by_params(histories, strategy, [params])[0][histories.offsets[1:] - 1]
    changed = int(np.sum(known_then != whole[probes]))
    if changed:
        raise LooksAhead(
            f"{strategy.signal_type} on {asset}|{panel.timeframe.name}: {changed} of "
            f"{len(probes)} signals change when the bars after them are taken away; a signal may "
            "use nothing later than its own bar's close"
        )
