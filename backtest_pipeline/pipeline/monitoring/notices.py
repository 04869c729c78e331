"""Notices of failed runs: to a webhook as JSON, to Slack, and by mail.

Addresses are secrets: whoever has that of a webhook can write to it. They are in no text, log line
or error here.
"""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from email.message import EmailMessage
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from backtest_pipeline.market.errors import BacktestError
from backtest_pipeline.storage.logs import redacted
from backtest_pipeline.storage.run_notices import MOST_TRIES, UnsentNotices

_TIMEOUT_S = 10
_MOST_TEXT = 1500


class NoticeSettings(BaseSettings):
    """Settings of notices of failed runs; one field per `BACKTEST_...` variable.

    Attributes:
        notify_webhook: address that gets each failed run as JSON (docs/automation.md); a secret.
        notify_slack_webhook: address of a webhook of Slack, or of a chat that takes the same; a
            secret.
        notify_smtp_url: mail server, `smtp://user:password@host:587` with STARTTLS, or `smtps://`;
            a secret.
        notify_mail_from: sender of the mails.
        notify_mail_to: receivers of the mails, separated by commas.
    """

    model_config = SettingsConfigDict(
        env_prefix="BACKTEST_", env_ignore_empty=True, extra="ignore", frozen=True
    )

    notify_webhook: SecretStr | None = None
    notify_slack_webhook: SecretStr | None = None
    notify_smtp_url: SecretStr | None = None
    notify_mail_from: str = ""
    notify_mail_to: str = ""

    @field_validator("notify_webhook", "notify_slack_webhook")
    @classmethod
    def _is_an_address(cls, url: SecretStr | None) -> SecretStr | None:
        return _checked(url, ("http", "https"), "https://hooks.example.com/...")

    @field_validator("notify_smtp_url")
    @classmethod
    def _is_a_mail_server(cls, url: SecretStr | None) -> SecretStr | None:
        return _checked(url, ("smtp", "smtps"), "smtp://user:password@mail.example.com:587")

    @property
    def receivers(self) -> tuple[str, ...]:
        """The receivers that are set: any of webhook, slack and mail."""
        is_set = {
            "webhook": self.notify_webhook is not None,
            "slack": self.notify_slack_webhook is not None,
            "mail": self.notify_smtp_url is not None and bool(self.notify_mail_to),
        }
        return tuple(name for name, there in is_set.items() if there)


def _checked(url: SecretStr | None, schemes: tuple[str, ...], such: str) -> SecretStr | None:
    parts = urlsplit(url.get_secret_value()) if url is not None else None
    if parts is not None and (parts.scheme not in schemes or not parts.hostname):
        raise ValueError(f"is not an address like {such}")
    return url


class NotSent(BacktestError):
    """A receiver did not accept a notice; it is sent again later."""


@dataclass(frozen=True)
class Notice:
    """The notice of a failed run, as receivers get it.

    Attributes:
        run_id: of Dagster.
        job: its job.
        ended_at: when it failed, ISO 8601.
        partitions: the range that it computed, or empty.
        requested_by: schedule or sensor, or empty.
        reason: the first lines of its error, without secrets.
    """

    run_id: str
    job: str
    ended_at: str
    partitions: str
    requested_by: str
    reason: str

    @property
    def text(self) -> str:
        """All of it in a few lines."""
        by = f", requested by {self.requested_by}" if self.requested_by else ""
        over = f", partitions {self.partitions}" if self.partitions else ""
        return f"Run {self.run_id} of {self.job} failed at {self.ended_at}{over}{by}: {self.reason}"


def shortened(reason: str) -> str:
    """The beginning of a reason, without secrets."""
    safe = redacted(reason).strip()
    return safe if len(safe) <= _MOST_TEXT else f"{safe[:_MOST_TEXT]} ..."


def unsent_in_words(unsent: Sequence[UnsentNotices]) -> str:
    """How many notices wait and how many were given up, with the reasons; empty where none.

    Examples:
        >>> unsent_in_words([UnsentNotices("webhook", "the receiver answered 500", 2, 1)])
        '2 wait for another try (webhook: the receiver answered 500); 1 given up after 10 tries \
(webhook: the receiver answered 500)'
    """
    waiting, given_up = sum(one.waiting for one in unsent), sum(one.given_up for one in unsent)
    sentences = []
    if waiting:
        why = ", ".join(f"{one.receiver}: {one.problem}" for one in unsent if one.waiting)
        sentences.append(f"{waiting} wait{'s' * (waiting == 1)} for another try ({why})")
    if given_up:
        why = ", ".join(f"{one.receiver}: {one.problem}" for one in unsent if one.given_up)
        sentences.append(f"{given_up} given up after {MOST_TRIES} tries ({why})")
    return "; ".join(sentences)


def send(settings: NoticeSettings, receiver: str, notice: Notice) -> None:
    """Send a notice to a receiver that is set.

    Raises:
        NotSent: where it does not accept the notice within ten seconds, whatever it does meanwhile.
    """
    outcome: Future[None] = Future()

    def attempt() -> None:
        try:
            _deliver(settings, receiver, notice)
        except BaseException as error:  # raised again where the outcome is read
            outcome.set_exception(error)
        else:
            outcome.set_result(None)

    # The time limits of HTTP and mail clients are for each read, and a receiver that drips is never
    # late for one. The thread of such a one is left behind until the receiver ends.
    Thread(target=attempt, name=f"notice to {receiver}", daemon=True).start()
    try:
        outcome.result(timeout=_TIMEOUT_S)
    except TimeoutError:
        raise _late() from None


def _late() -> NotSent:
    return NotSent(f"the receiver did not answer within {_TIMEOUT_S} seconds")


def _deliver(settings: NoticeSettings, receiver: str, notice: Notice) -> None:
    if receiver == "mail":
        _mail(settings, notice)
    elif receiver == "slack":
        _post(settings.notify_slack_webhook, {"text": notice.text}, notice)
    else:
        _post(settings.notify_webhook, {"event": "run_failed", **asdict(notice)}, notice)


def _post(url: SecretStr | None, body: dict[str, Any], notice: Notice) -> None:
    import httpx2  # every command reads the settings above, and none of them sends anything

    if url is None:
        raise NotSent("its address is not set any more")
    try:
        # A receiver that was told twice, as after a kill in between, knows it by the key.
        with httpx2.stream(
            "POST",
            url.get_secret_value(),
            json=body,
            headers={"Idempotency-Key": notice.run_id},
            timeout=_TIMEOUT_S,
        ) as response:
            status = response.status_code
    except httpx2.TimeoutException:
        raise _late() from None
    except httpx2.HTTPError as error:  # its text may have the address
        raise NotSent(f"the receiver could not be reached ({type(error).__name__})") from None
    if not 200 <= status < 300:
        raise NotSent(f"the receiver answered {status}")


def _mail(settings: NoticeSettings, notice: Notice) -> None:
    if settings.notify_smtp_url is None:
        raise NotSent("its server is not set any more")
    parts = urlsplit(settings.notify_smtp_url.get_secret_value())
    message = EmailMessage()
    message["Subject"] = f"Run of {notice.job} failed"
    message["From"] = settings.notify_mail_from or "backtest-pipeline@localhost"
    message["To"] = settings.notify_mail_to
    message["Message-ID"] = f"<{notice.run_id}@backtest-pipeline>"
    message.set_content(notice.text)
    context = ssl.create_default_context()
    host = parts.hostname or ""
    try:
        with (
            smtplib.SMTP_SSL(host, parts.port or 465, timeout=_TIMEOUT_S, context=context)
            if parts.scheme == "smtps"
            else smtplib.SMTP(host, parts.port or 587, timeout=_TIMEOUT_S)
        ) as server:
            if parts.scheme == "smtp" and (server.ehlo() and server.has_extn("starttls")):
                server.starttls(context=context)
                server.ehlo()
            elif parts.scheme == "smtp" and parts.password:
                raise NotSent("the mail server offers no STARTTLS, so the password is not sent")
            if parts.username:
                server.login(unquote(parts.username), unquote(parts.password or ""))
            server.send_message(message)
    except TimeoutError:
        raise _late() from None
    except (smtplib.SMTPException, OSError) as error:
        raise NotSent(f"the mail server did not take it ({type(error).__name__})") from None
