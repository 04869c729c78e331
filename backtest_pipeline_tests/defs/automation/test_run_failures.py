"""A failed run is notified once, whatever becomes of the sensor, and without secrets."""

import json
import os
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import dagster as dg
import pytest

from backtest_pipeline.defs.automation.run_failures import run_failures
from backtest_pipeline.pipeline.monitoring import notices
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline_tests.waiting import LIMIT_S

SECRET = "hunter2hunter2"  # noqa: S105 - of no account


class Receiver:
    """A web server that keeps what it gets, and answers with the next of `answers`, or 200."""

    def __init__(self) -> None:
        self.got: list[dict[str, str]] = []
        self.keys: list[str | None] = []
        self.answers: list[int] = []
        self.hangs_s = 0.0


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    found = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            time.sleep(found.hangs_s)
            status = found.answers.pop(0) if found.answers else 200
            if status == 200:
                found.got.append(json.loads(body))
                found.keys.append(self.headers["Idempotency-Key"])
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    address = f"http://127.0.0.1:{server.server_address[1]}/{SECRET}"
    monkeypatch.setenv("BACKTEST_NOTIFY_WEBHOOK", address)
    with serving(server):
        yield found


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def failed_run(instance: dg.DagsterInstance) -> str:
    @dg.op
    def breaking() -> None:
        raise dg.Failure(f"the server at postgresql://me:{SECRET}@db refused the login")

    @dg.job(tags={"dagster/schedule_name": "daily_backfill", "dagster/partition": "BTC|1D"})
    def nightly() -> None:
        breaking()

    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    return nightly.execute_in_process(quiet, instance=instance, raise_on_error=False).run_id


def tick(instance: dg.DagsterInstance) -> str:
    skipped = run_failures(dg.build_sensor_context(instance))
    assert isinstance(skipped, dg.SkipReason)
    return str(skipped.skip_message)


def let_time_pass(store: Database) -> None:
    with store.begin() as connection:
        connection.exec_driver_sql("UPDATE run_notices SET next_try_at = now()")


def test_a_failed_run_is_notified_once_and_without_secrets(
    store: Database,
    receiver: Receiver,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_id = failed_run(instance)
    receiver.answers = [500]
    assert "the receiver answered 500, try 1" in tick(instance)
    assert tick(instance) == "1 waits for another try (webhook: the receiver answered 500)"
    let_time_pass(store)
    assert tick(instance) == f"run {run_id} to webhook: sent"
    let_time_pass(store)
    for _ in range(2):  # a sensor that was killed or reset knows no more than this
        assert tick(instance) == "no run has failed that is not notified"
    (told,) = receiver.got
    assert receiver.keys == [run_id]
    assert told["event"] == "run_failed"
    assert (told["job"], told["partitions"]) == ("nightly", "BTC|1D")
    assert told["requested_by"] == "daily_backfill"
    assert "the server at postgresql://me:***@db refused the login" in told["reason"]
    assert SECRET not in json.dumps(told)

    # Another receiver, which takes what Slack takes.
    monkeypatch.setenv("BACKTEST_NOTIFY_SLACK_WEBHOOK", os.environ["BACKTEST_NOTIFY_WEBHOOK"])
    assert tick(instance) == f"run {run_id} to slack: sent"
    assert set(receiver.got[1]) == {"text"}
    assert f"Run {run_id} of nightly failed at" in receiver.got[1]["text"]


def test_a_receiver_that_hangs_or_is_gone_does_not_stop_the_others(
    store: Database,
    receiver: Receiver,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(notices, "_TIMEOUT_S", 0.3)
    receiver.hangs_s = 1.0
    first = failed_run(instance)
    said = tick(instance)
    assert "did not answer within 0.3 seconds, try 1" in said
    monkeypatch.setattr(notices, "_TIMEOUT_S", LIMIT_S)  # for those that answer, on a busy machine
    monkeypatch.setenv("BACKTEST_NOTIFY_SLACK_WEBHOOK", f"http://127.0.0.1:1/{SECRET}")
    receiver.hangs_s = 0
    let_time_pass(store)
    said = tick(instance)
    assert f"run {first} to webhook: sent" in said
    assert f"run {first} to slack: the receiver could not be reached (ConnectError)" in said
    assert SECRET not in said
    with store.begin() as connection:
        connection.exec_driver_sql("UPDATE run_notices SET tries = 10 WHERE sent_at IS NULL")
    given_up = "1 given up after 10 tries (slack: the receiver could not be reached (ConnectError))"
    assert tick(instance) == given_up
    with store.begin() as connection:
        rows = connection.exec_driver_sql("SELECT problem FROM run_notices").scalars().all()
    assert not any(SECRET in problem for problem in rows)


@pytest.mark.usefixtures("store")
def test_a_receiver_that_hangs_holds_no_other(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhook_has_it = threading.Event()
    monkeypatch.setattr(notices, "_TIMEOUT_S", LIMIT_S)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            is_slack = b'"text"' in self.rfile.read(int(self.headers["Content-Length"]))
            if not is_slack:
                webhook_has_it.set()
            self.send_response(200 if webhook_has_it.wait(LIMIT_S) else 500)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    for name in ("WEBHOOK", "SLACK_WEBHOOK"):
        address = f"http://127.0.0.1:{server.server_address[1]}/"
        monkeypatch.setenv(f"BACKTEST_NOTIFY_{name}", address)
    run_id = failed_run(instance)
    with serving(server):
        said = tick(instance)
    assert said == f"run {run_id} to webhook: sent; run {run_id} to slack: sent"


class DrippingHandler(socketserver.BaseRequestHandler):
    """Accepts a request, a byte of the answer at a time: never late for one, late for all."""

    def handle(self) -> None:
        self.request.recv(65536)
        for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n":
            time.sleep(0.05)
            try:
                self.request.sendall(bytes([byte]))
            except OSError:  # the sender has gone
                return


def test_a_receiver_that_drips_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "_TIMEOUT_S", 0.3)
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), DrippingHandler)
    with serving(server):
        where = f"127.0.0.1:{server.server_address[1]}"
        monkeypatch.setenv("BACKTEST_NOTIFY_WEBHOOK", f"http://{where}/{SECRET}")
        with pytest.raises(notices.NotSent, match=r"did not answer within 0\.3 seconds"):
            notices.send(notices.NoticeSettings(), "webhook", _notice("a"))


def test_nothing_is_looked_for_without_a_receiver(
    store: Database, instance: dg.DagsterInstance
) -> None:
    failed_run(instance)
    assert "no receiver is set: give BACKTEST_NOTIFY_WEBHOOK" in tick(instance)


class MailHandler(socketserver.StreamRequestHandler):
    """As much of SMTP as one mail takes."""

    mails: list[str]

    def handle(self) -> None:
        self.wfile.write(b"220 here\r\n")
        while line := self.rfile.readline().strip().upper():
            if line == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                lines = iter(self.rfile.readline, b".\r\n")
                type(self).mails.append(b"".join(lines).decode())
            self.wfile.write(b"221 bye\r\n" if line == b"QUIT" else b"250 ok\r\n")
            if line == b"QUIT":
                return


@pytest.mark.usefixtures("store")
def test_mail_is_sent_and_a_password_only_over_tls(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    MailHandler.mails = []
    run_id = failed_run(instance)
    monkeypatch.setenv("BACKTEST_NOTIFY_MAIL_TO", "desk@example.com")
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), MailHandler)
    with serving(server):
        where = f"127.0.0.1:{server.server_address[1]}"
        monkeypatch.setenv("BACKTEST_NOTIFY_SMTP_URL", f"smtp://me:{SECRET}@{where}")
        assert "offers no STARTTLS, so the password is not sent" in tick(instance)
        assert MailHandler.mails == []
        monkeypatch.setenv("BACKTEST_NOTIFY_SMTP_URL", f"smtp://{where}")
        notices.send(notices.NoticeSettings(), "mail", _notice(run_id))
    (mail,) = MailHandler.mails
    assert "Subject: Run of nightly failed" in mail
    assert "To: desk@example.com" in mail
    assert "too bad" in mail


def _notice(run_id: str) -> notices.Notice:
    return notices.Notice(run_id, "nightly", "2026-01-01T00:00:00+00:00", "", "", "too bad")
