"""The sensor that sends notices of failed runs."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import dagster as dg

from backtest_pipeline.defs.automation.declared import as_sensor
from backtest_pipeline.defs.partitions import RANGE_END, RANGE_START
from backtest_pipeline.market.errors import SchemaNotMigrated
from backtest_pipeline.pipeline.monitoring.notices import (
    Notice,
    NoticeSettings,
    NotSent,
    send,
    shortened,
    unsent_in_words,
)
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.postgres.migrations import opened
from backtest_pipeline.storage.run_notices import (
    DueNotice,
    claim_notice,
    mark_sent,
    mark_unsent,
    note_failures,
    unsent_notices,
)
from backtest_pipeline.storage.settings import load_settings, read_settings

_LATELY = timedelta(days=1)
_MOST_RUNS = 200
_LONGEST_TICK_S = 20


@dg.sensor(**as_sensor("run_failures"))
def run_failures(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    # Without a cursor: which runs were notified is in the rows of `run_notices`.
    settings = read_settings(NoticeSettings)
    if not settings.receivers:
        return dg.SkipReason(
            "no receiver is set: give BACKTEST_NOTIFY_WEBHOOK, BACKTEST_NOTIFY_SLACK_WEBHOOK, or "
            "BACKTEST_NOTIFY_SMTP_URL with BACKTEST_NOTIFY_MAIL_TO"
        )
    failed = context.instance.get_run_records(
        dg.RunsFilter(
            statuses=[dg.DagsterRunStatus.FAILURE], updated_after=datetime.now(UTC) - _LATELY
        ),
        limit=_MOST_RUNS,
    )
    ids = [record.dagster_run.run_id for record in failed]
    try:
        with opened(load_settings()) as database:
            with database.begin() as connection:
                note_failures(connection, ids, settings.receivers)

            def served(receiver: str) -> list[str]:
                return [
                    _sent(context.instance, database, settings, due)
                    for due in _claimed(database, receiver)
                ]

            with ThreadPoolExecutor(len(settings.receivers)) as receivers:
                told = [one for some in receivers.map(served, settings.receivers) for one in some]
            with database.begin() as connection:
                unsent = unsent_in_words(unsent_notices(connection, settings.receivers))
    except SchemaNotMigrated as error:
        return dg.SkipReason(str(error))
    sentences = [*told, unsent] if unsent else told
    return dg.SkipReason("; ".join(sentences) or "no run has failed that is not notified")


def _claimed(database: Database, receiver: str) -> Iterator[DueNotice]:
    """The notices that are due to a receiver, until the tick has taken long enough."""
    until = time.monotonic() + _LONGEST_TICK_S
    while time.monotonic() < until:
        with database.begin() as connection:
            due = claim_notice(connection, [receiver])
        if due is None:
            return
        yield due


def _sent(
    instance: dg.DagsterInstance, database: Database, settings: NoticeSettings, due: DueNotice
) -> str:
    """Send a notice; returns what became of it, in a sentence."""
    about = f"run {due.dagster_run_id} to {due.receiver}"
    try:
        send(settings, due.receiver, notice_of(instance, due.dagster_run_id))
    except NotSent as error:
        with database.begin() as connection:
            mark_unsent(connection, due, str(error))
        return f"{about}: {error}, try {due.tries}"
    with database.begin() as connection:
        mark_sent(connection, due)
    return f"{about}: sent"


def notice_of(instance: dg.DagsterInstance, run_id: str) -> Notice:
    """The notice of a failed run; of one that was deleted meanwhile, its id alone."""
    record = instance.get_run_record_by_id(run_id)
    if record is None:
        return Notice(run_id, "a job", "", "", "", "the run was deleted from Dagster")
    run, tags = record.dagster_run, record.dagster_run.tags
    first, last = tags.get(RANGE_START, ""), tags.get(RANGE_END, "")
    ended = datetime.fromtimestamp(record.end_time or record.update_timestamp.timestamp(), UTC)
    return Notice(
        run_id,
        run.job_name,
        ended.isoformat(timespec="seconds"),
        tags.get("dagster/partition", "") or (first if first == last else f"{first} to {last}"),
        tags.get("dagster/schedule_name", "") or tags.get("dagster/sensor_name", ""),
        shortened(_reason(instance, run_id)),
    )


def _reason(instance: dg.DagsterInstance, run_id: str) -> str:
    """The cause of the first step that failed, or else of the run."""
    kinds = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
    for entry in instance.all_logs(run_id, of_type=kinds):
        event = entry.dagster_event
        if event is None:
            continue
        if event.is_step_failure:
            error = event.step_failure_data.error
            while error is not None and error.cause is not None:
                error = error.cause
            return error.message if error is not None else event.message or ""
        return event.message or ""
    return "no reason was recorded"
