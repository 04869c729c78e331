"""Whether a strategy's signals use bars that come after them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from backtest_pipeline.market.errors import LooksAhead
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.research.next_bars import changed_by_next_bars
from backtest_pipeline.simulation.windows import events_by_params
from backtest_pipeline.strategies.base import Strategy

_PROBES = 24


def require_no_look_ahead(
    panel: Panel, strategy: Strategy[Any], params: Sequence[Mapping[str, Any]], asset: str
) -> None:
    """Give a strategy other futures: what it says up to a bar must not depend on what follows.

    A strategy that looks ahead looks as good out of sample as in sample, so that no comparison
    of the two shows it. Under the last set of parameters the bars after some of the signals are
    taken away: each must still be there. Under all sets the bars after instants that are spread
    over the history rise or fall instead, which shows entries that later bars forbid as well.

    Args:
        panel: bars, with the features that are not computed from them here.
        strategy: what to probe.
        params: the sets of parameters that were chosen.
        asset: on whose bars.

    Raises:
        LooksAhead: with the share of the probed signals or instants that changed.
    """
    where = f"{strategy.signal_type} on {asset}|{panel.timeframe.name}"
    changed, probed = changed_signals(panel, strategy, params[-1], asset) if params else (0, 0)
    if changed:
        raise LooksAhead(
            f"{where}: {changed} of {probed} signals change when the bars after them are taken "
            "away; a signal may use nothing later than its own bar's close"
        )
    changed, probed = changed_by_next_bars(panel, strategy, params, asset)
    if changed:
        raise LooksAhead(
            f"{where}: up to {changed} of {probed} instants signals differ between rising and "
            "falling bars after them; a signal may use nothing later than its own bar's close, not "
            "even to stay away"
        )


def changed_signals(
    panel: Panel, strategy: Strategy[Any], params: Mapping[str, Any], asset: str
) -> tuple[int, int]:
    """How many of a strategy's signals change when the bars after them are taken away.

    The probes are spread evenly over the asset's signals; each history ends with the bar of its
    signal, and all are computed at once.

    Returns:
        `(changed, probed)`.
    """
    rows = panel.rows_of(asset)
    whole = events_by_params(panel.select([asset]), strategy, [params])[0]
    given = np.flatnonzero(whole)
    if len(given) == 0:
        return 0, 0
    probes = given[np.unique(np.linspace(0, len(given) - 1, _PROBES).astype(int))]
    histories = panel.windows([slice(rows.start, rows.start + int(at) + 1) for at in probes])
    known_then = events_by_params(histories, strategy, [params])[0][histories.offsets[1:] - 1]
    return int(np.sum(known_then != whole[probes])), len(probes)
