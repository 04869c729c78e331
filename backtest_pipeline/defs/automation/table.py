"""The one table of all that runs by itself: when, over what, at what cost, and after downtime.

Definitions take their name, cron expression, default and description from it; the command
`automation` and docs/automation.md show it. It imports nothing of Dagster.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Automation:
    """A schedule or sensor.

    Attributes:
        name: its name in Dagster.
        does: what it does, a sentence without its full stop.
        over: which partitions.
        cost: of a tick, and of what it starts.
        downtime: what happens after the daemon was down.
        cron: of a schedule, in UTC; empty for a sensor.
        every_s: of a sensor, the least number of seconds between two ticks.
        on: whether it is on until somebody turns it off.
    """

    name: str
    does: str
    over: str
    cost: str
    downtime: str
    cron: str = ""
    every_s: int = 0
    on: bool = True

    @property
    def is_schedule(self) -> bool:
        """Whether it is a schedule, and not a sensor."""
        return bool(self.cron)

    @property
    def when(self) -> str:
        """The cron expression, or how often a sensor looks."""
        return f"{self.cron} UTC" if self.cron else f"every {self.every_s} s"

    @property
    def description(self) -> str:
        """All of it, as Dagster's automation page shows it."""
        return (
            f"{self.does}. Over: {self.over}. Cost: {self.cost}. After downtime: {self.downtime}."
        )


_BY_STATE = "one run for all that was missed, because what is due follows from the store"
_NEXT = "the next tick does it"
_LATEST = "the latest missed tick is made up for, earlier ones are not needed"
_TICK = "a tick without news reads a few tables"


def _backfill(group: str, over: str, cron: str) -> Automation:
    return Automation(
        f"{group}_backfill",
        "Computes what is missing, failed or stale, and new bars once they have closed, in one run",
        f"{over}, of all assets of the source; exactly those that are due",
        "a tick of 20,000 partitions takes 2.6 s of processor time; the run computes only what is "
        "new",
        _BY_STATE,
        cron=cron,
    )


AUTOMATIONS: Sequence[Automation] = (
    _backfill("hourly", "timeframes below a day", "5 * * * *"),
    _backfill(
        "daily", "timeframes in days, and months or years of fixed length", "20 0,1,2,4,8,16 * * *"
    ),
    _backfill("weekly", "timeframes in weeks", "30 0,4,12 * * *"),
    _backfill("monthly", "calendar months, quarters and years", "40 0,4,12 * * *"),
    Automation(
        "nightly_restatements",
        "Looks for history that the source has changed after runs had used it",
        "all partitions",
        "one run; seconds",
        _LATEST,
        cron="40 1 * * *",
    ),
    Automation(
        "nightly_second_opinion",
        "Gives vectorbt the orders of each backtest that it has not seen",
        "all runs that are new to it",
        "one run; imports nothing where none is new, else 10 s and a second per 10,000 runs",
        _LATEST,
        cron="20 1 * * *",
    ),
    Automation(
        "nightly_replay",
        "Replays 20 of the stored backtests on the code that made them, and quarantines those that "
        "differ",
        "a sample of all runs, another one each day",
        "one run; 11 s",
        _LATEST,
        cron="50 1 * * *",
    ),
    Automation(
        "nightly_cross_sections",
        "Runs the cross-sections of the folder of strategies on the newest features",
        "timeframes with stored backtests of two or more assets; none where the folder has no "
        "cross-section",
        "one run for adjacent timeframes; a second for each cross-section and timeframe with new "
        "features",
        _LATEST,
        cron="0 2 * * *",
    ),
    Automation(
        "nightly_leaderboard",
        "Ranks all current runs",
        "all runs",
        "one run; seconds for 10,000 runs",
        _LATEST,
        cron="10 2 * * *",
    ),
    Automation(
        "nightly_retention",
        "Deletes old results that are neither pinned nor needed, and trims Dagster's log",
        "all results",
        "one run; seconds",
        _LATEST,
        cron="10 4 * * *",
    ),
    Automation(
        "weekly_negative_controls",
        "Measures how often the strategy search finds an edge on markets without one",
        "no partition: 1,000 random markets of each kind",
        "one run; half a minute",
        _LATEST,
        cron="10 5 * * 1",
    ),
    Automation(
        "weekly_look_ahead",
        "Repeats the look-ahead test on a new sample of assets and cut-off dates, also for code "
        "that passed before",
        "a sample of all partitions",
        "one run; a minute",
        _LATEST,
        cron="40 6 * * 1",
    ),
    Automation(
        "weekly_walk_forward",
        "Runs walk-forwards of every strategy; stored folds are reused, only new ones are computed",
        "all partitions",
        "one run; the first takes hours at 1,000 partitions",
        _LATEST,
        cron="10 3 * * 6",
        on=False,
    ),
    Automation(
        "source_assets",
        "Adds a Dagster partition for each new symbol of the bar source",
        "none yet; the next backfill computes them",
        "the source is asked for its symbols",
        _NEXT,
        every_s=300,
    ),
    Automation(
        "store_timeframes",
        "Keeps the partitions by timeframe as BACKTEST_TIMEFRAMES and the store name them",
        "none",
        _TICK,
        _NEXT,
        every_s=60,
    ),
    Automation(
        "external_features",
        "Watches the external feature table: reports changed partitions, adds new assets, and "
        "launches a refresh of outdated partitions",
        "partitions whose rows have changed; only with BACKTEST_FEATURES_TABLE",
        "one query over the table's keys, and 10 ms for each changed partition",
        _BY_STATE,
        every_s=60,
    ),
    Automation(
        "portfolio_rollups_after_backtests",
        "Rebuilds the portfolios of the timeframes at which backtests were stored",
        "timeframes with new backtests",
        "one run for adjacent timeframes; seconds each",
        _NEXT,
        every_s=30,
    ),
    Automation(
        "requested_jobs",
        "Launches requested jobs, and relaunches those whose worker was lost",
        "what the job names",
        _TICK,
        _NEXT,
        every_s=5,
    ),
    Automation(
        "replans",
        "Notes what triggers a replan of a plan book, launches the replans that wait, and runs "
        "books over new data",
        "the partitions of plan books",
        _TICK,
        _NEXT,
        every_s=30,
    ),
    Automation(
        "dead_runs",
        "Marks runs failed whose command was killed",
        "none",
        _TICK,
        _NEXT,
        every_s=15,
    ),
    Automation(
        "run_failures",
        "Sends a notice of each failed run to the webhook, Slack channel and mail addresses that "
        "are set",
        "none",
        "a request or mail for each failed run",
        "failures of the last day are notified",
        every_s=30,
    ),
    Automation(
        "conditions",
        "Shows by Dagster's automation conditions why partitions would be computed, and requests "
        "them while it is on; the backfills do so without it",
        "bars to backtests and cross-sections, partitions whose inputs have another data version",
        "20,000 partitions: 13 s, 350 MB and a cursor of 10 MB; leave it off above 5,000",
        "changes since the last tick are requested",
        every_s=60,
        on=False,
    ),
)
_BY_NAME = {automation.name: automation for automation in AUTOMATIONS}


def automation(name: str) -> Automation:
    """The row of that name."""
    return _BY_NAME[name]


def markdown() -> str:
    """The table as docs/automation.md shows it."""
    lines = [
        "| name | when | what it does | over which partitions | cost | after downtime | at first |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in AUTOMATIONS:
        cells = (f"`{row.name}`", row.when, row.does, row.over, row.cost, row.downtime)
        lines.append(f"| {' | '.join(cells)} | {'on' if row.on else 'off'} |")
    return "\n".join(lines)
