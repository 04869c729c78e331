"""Log lines tell what they are about, and no secret."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator

import pytest

from backtest_pipeline.storage.logs import Record, about, hide_secrets, redacted, set_up_logging

CANARY = "SECRET-CANARY"
log = logging.getLogger("backtest_pipeline.of_this_test")


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    root, factory, hook = logging.getLogger(), logging.getLogRecordFactory(), sys.excepthook
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], sys.excepthook = handlers, hook
    root.setLevel(level)
    logging.setLogRecordFactory(factory)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"postgresql://me:{CANARY}@db:5432/x", "postgresql://me:***@db:5432/x"),
        (f"postgresql://me:{CANARY}@/:pass@db/x", "postgresql://me:***@db/x"),
        (f"host=db password={CANARY} dbname=x", "host=db password=*** dbname=x"),
        (f"host=db password = '{CANARY} \\' {CANARY}' user=u", "host=db password = '***' user=u"),
        (f"{{'password': '{CANARY}', 'user': 'u'}}", "{'password': '***', 'user': 'u'}"),
        (f"key btp_{CANARY}.x is revoked", "key btp_*** is revoked"),
        (f"Authorization: Bearer {CANARY}", "Authorization: Bearer ***"),
        ("token eyJhbGciOi.eyJzdWIi.c2ln is old", "token *** is old"),
        ("AKIAABCDEFGHIJKLMNOP may not write", "*** may not write"),
        (f"AccountName=a;AccountKey={CANARY};x=y", "AccountName=a;AccountKey=***;x=y"),
        (f"https://b.example/c?sv=1&sig={CANARY}&se=2", "https://b.example/c?sv=1&sig=***&se=2"),
        (
            "12 partitions of BTC|1D: a basic key=value",
            "12 partitions of BTC|1D: a basic key=value",
        ),
    ],
)
def test_what_looks_like_a_secret_is_hidden_and_nothing_else(text: str, told: str) -> None:
    assert redacted(text) == told
    assert redacted(told) == told
    assert json.loads(redacted(json.dumps({"a": {"message": text}}))) == {"a": {"message": told}}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("BACKTEST_POSTGRES_DSN", f"postgresql://me:{CANARY}%40@db/x"),
        ("BACKTEST_FEATURES_DSN", f"host=db password='{CANARY}@' user=me"),
        ("AWS_SECRET_ACCESS_KEY", f"{CANARY}@"),
        ("AZURE_STORAGE_ACCOUNT_KEY", f"{CANARY}@"),
    ],
)
def test_a_secret_of_the_environment_is_hidden_wherever_it_stands(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    assert redacted(f"<{CANARY}@> <{CANARY}%40> db") == "<***> <***> db"


def test_no_handler_gets_a_secret_in_message_arguments_traceback_or_stack(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also a handler and a formatter that know nothing of this module."""
    hide_secrets()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    try:
        log.error("%s and %s", f"password={CANARY}", ValueError(f"Bearer {CANARY}"))
        try:
            raise ValueError(f"postgresql://me:{CANARY}@db/x")
        except ValueError:
            log.exception("no connection", stack_info=True)
    finally:
        log.removeHandler(handler)
    told = capsys.readouterr().err
    assert "no connection" in told
    assert "ValueError: postgresql://me:***@db/x" in told
    assert CANARY not in told.replace(f'f"postgresql://me:{{{CANARY}', "")


def test_arguments_that_do_not_fit_their_message_hold_no_secret() -> None:
    """Logging itself complains then, and shows both."""
    about_it = ("backtest", logging.ERROR, "a.py", 1, f"password={CANARY} %d", (f"btp_{CANARY}",))
    record = Record(*about_it, None)
    assert (record.msg, record.args) == ("password=*** %d", ("btp_***",))


def test_json_lines_carry_the_ids_that_they_are_about(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKTEST_LOG_FORMAT", "json")
    set_up_logging(level=logging.INFO)
    set_up_logging(level=logging.INFO)  # does not log twice
    with about(request="r-1", job="j-1"), about(run="u-1"):
        log.info("took %s", 3, extra={"dsn": f"postgresql://me:{CANARY}@db"})
    log.warning("after")
    inside, after = map(json.loads, capsys.readouterr().err.splitlines())
    assert inside.pop("ts").endswith("Z")
    assert inside == {
        "level": "INFO",
        "logger": log.name,
        "message": "took 3",
        "dsn": "postgresql://me:***@db",
        "request_id": "r-1",
        "job_id": "j-1",
        "run_id": "u-1",
    }
    assert (after["request_id"], after["job_id"], after["run_id"]) == (None, None, None)


def test_text_lines_are_in_utc_and_the_setting_counts_before_the_usual_format(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKTEST_LOG_FORMAT", "text")
    set_up_logging("json")
    with about(run="u-1"):
        log.warning("told")
    stamp, _, line = capsys.readouterr().err.strip().partition(" ")
    assert (stamp[-1], line) == ("Z", f"WARNING {log.name}: told [run_id=u-1]")


def test_the_traceback_that_ends_a_process_holds_no_secret(
    capsys: pytest.CaptureFixture[str],
) -> None:
    hide_secrets()
    error = ValueError(f"password={CANARY}")
    sys.excepthook(ValueError, error, None)
    assert capsys.readouterr().err == "ValueError: password=***\n"
