"""Logging for every process: secrets redacted, and request, job and run ids attached.

It is part of `storage` because the secrets are storage settings, and because the layers that log
(commands, service, Dagster processes, use cases) are above it. It imports nothing slow.

Secrets are redacted when a record is created, by the record class itself, so that no handler, of
Dagster, uvicorn or anything else, ever sees one.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Literal, TextIO
from urllib.parse import quote, unquote

FORMAT_VARIABLE = "BACKTEST_LOG_FORMAT"
HIDDEN = "***"
LogFormat = Literal["text", "json"]

request_id: ContextVar[str] = ContextVar("request_id", default="")
job_id: ContextVar[str] = ContextVar("job_id", default="")
run_id: ContextVar[str] = ContextVar("run_id", default="")
_ABOUT = (request_id, job_id, run_id)

_NAMED = (
    r"(?i)((?:password|passwd|secret(?:_access)?(?:_key)?|api_?key|session_token|access_token"
    r"|account_?key|x-amz-signature|\bsig)(?:\\?[\"'])?\s*[=:]\s*)"
)
_NAMES = ("passw", "secret", "key", "token", "sig")
# Substrings (lower case) that a text must contain for a pattern to be tried; the pattern; its
# replacement. No pattern consumes a quote or backslash whose beginning it did not match, so that
# JSON remains valid.
_SHAPES = (
    # postgresql://user:password@host, with any sign in the password but white space and quotes
    (("://",), re.compile(r"""(://[^\s:/@"'\\]*:)[^\s"'\\]+(?=@)"""), rf"\1{HIDDEN}"),
    (("btp_",), re.compile(r"\bbtp_[A-Za-z0-9_.\-]+"), f"btp_{HIDDEN}"),
    (
        ("bearer", "basic"),
        re.compile(r"((?i:\bbearer)|\bBasic)(\s+)[A-Za-z0-9+/_.~=\-]{6,}"),
        rf"\1\2{HIDDEN}",
    ),
    (("eyj",), re.compile(r"\beyJ[\w\-]+\.[\w\-]+\.[\w\-]*"), HIDDEN),
    (("akia", "asia"), re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"), HIDDEN),
    # password=..., 'password': '...', "api_key": "...", AccountKey=..., sig=...
    (_NAMES, re.compile(rf"{_NAMED}'(?:[^'\\]|\\+.)*'"), rf"\1'{HIDDEN}'"),
    (_NAMES, re.compile(rf"""{_NAMED}(\\?")[^"\\]*\\?\""""), rf"\1\2{HIDDEN}\2"),
    (_NAMES, re.compile(rf"""{_NAMED}[^\s"'\\&,;)}}\]]+"""), rf"\1{HIDDEN}"),
)
_SECRET_NAME = re.compile(
    r"PASSWORD|PASSWD|SECRET|TOKEN|CREDENTIAL|DSN|PG_URL|CONNECTION_STRING|WEBHOOK|SMTP_URL|_SAS|_KEY(_ID)?$"
)
_IN_A_DSN = re.compile(r"""://[^\s:/@]*:(\S+)@|password\s*=\s*(?:'((?:[^'\\]|\\.)*)'|(\S+))""")
_LEAST_LENGTH = (
    6  # shorter secrets occur inside ordinary words; as passwords the patterns hide them
)


def redacted(text: str) -> str:
    """The text with passwords, keys and tokens hidden: those in the environment, and lookalikes."""
    for secret in _secrets(os.environ):
        text = text.replace(secret, HIDDEN)
    folded = text.lower()
    for signs, shape, instead in _SHAPES:
        if any(sign in folded for sign in signs):
            text = shape.sub(instead, text)
    return text


class Record(logging.LogRecord):
    """A log record with secrets redacted from message, traceback and stack."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if isinstance(self.args, tuple):
            self.args = tuple(redacted(a) if isinstance(a, str) else a for a in self.args)
        try:
            message = self.getMessage()
        except (
            TypeError,
            ValueError,
        ):  # logging reports this itself, showing message and arguments
            self.msg = redacted(str(self.msg))
        else:
            if (safe := redacted(message)) != message:
                self.msg, self.args = safe, ()
        if self.exc_info:
            # Formatters use this text if it is set.
            self.exc_text = redacted(logging.Formatter().formatException(self.exc_info))
        if self.stack_info:
            self.stack_info = redacted(self.stack_info)


def hide_secrets() -> None:
    """Redact secrets from all log records of this process and from the traceback that ends it."""
    logging.setLogRecordFactory(Record)
    sys.excepthook = _log_end


def set_up_logging(usual: LogFormat = "text", level: int = logging.WARNING) -> None:
    """Log to stderr with secrets redacted; calling it again changes format and level.

    Args:
        usual: the format, unless `BACKTEST_LOG_FORMAT` is set.
        level: the lowest level to log.
    """
    hide_secrets()
    # Read directly: loading settings takes longer than a command that only prints its help.
    # `Settings` validates it.
    as_json = (os.environ.get(FORMAT_VARIABLE) or usual).strip().lower() == "json"
    handler = _Stderr()
    handler.setFormatter(_json_formatter() if as_json else _TextLines())
    root = logging.getLogger()
    for former in [h for h in root.handlers if isinstance(h, _Stderr)]:
        root.removeHandler(former)
    root.addHandler(handler)
    root.setLevel(level)


@contextmanager
def about(*, request: str = "", job: str = "", run: str = "") -> Iterator[None]:
    """Attach these ids to everything logged in the block; an empty id is left unchanged."""
    given = zip(_ABOUT, (request, job, run), strict=True)
    tokens = [(variable, variable.set(value)) for variable, value in given if value]
    try:
        yield
    finally:
        for variable, token in tokens:
            variable.reset(token)


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to the current `sys.stderr`, which progress bars and tests replace."""

    @property
    def stream(self) -> TextIO:  # pyright: ignore[reportIncompatibleVariableOverride]
        return sys.stderr

    @stream.setter
    def stream(self, _given: TextIO) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Always `sys.stderr`."""


class _TextLines(logging.Formatter):
    converter = time.gmtime

    def __init__(self) -> None:
        super().__init__("%(asctime)sZ %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        known = " ".join(f"{v.name}={v.get()}" for v in _ABOUT if v.get())
        text = super().format(record)
        return redacted(f"{text} [{known}]" if known and "\n" not in text else text)


def _json_formatter() -> logging.Formatter:
    from pythonjsonlogger.json import JsonFormatter

    class Json(JsonFormatter):
        def add_fields(
            self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
        ) -> None:
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            log_data["ts"] = f"{stamp}.{int(record.msecs):03d}Z"
            log_data["level"], log_data["logger"] = record.levelname, record.name
            super().add_fields(log_data, record, message_dict)
            for variable in _ABOUT:
                log_data[variable.name] = variable.get() or None

        def formatException(self, ei: Any) -> str:  # noqa: N802 - the library's name
            return redacted("".join(super().formatException(ei)))

        def serialize_log_record(self, log_data: dict[str, Any]) -> str:
            return redacted(super().serialize_log_record(log_data))

    return Json(["message"])


def _secrets(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The secrets in the environment, each in every form it may be written in."""
    named = tuple(
        value for name, value in environment.items() if value and _SECRET_NAME.search(name.upper())
    )
    if named not in _KNOWN:
        _KNOWN.clear()
        _KNOWN[named] = _written(named)
    return _KNOWN[named]


_KNOWN: dict[tuple[str, ...], tuple[str, ...]] = {}


def _written(values: tuple[str, ...]) -> tuple[str, ...]:
    plain: set[str] = set()
    for value in values:
        inside = [part for match in _IN_A_DSN.findall(value) for part in match if part]
        # A connection string without a password is not secret, nor is the host of one with it.
        is_dsn = "://" in value or re.search(r"\b(host|dbname|service)\s*=", value)
        plain.update(inside if inside or is_dsn else [value])
    forms = {
        form
        for secret in plain
        for form in (secret, unquote(secret), quote(secret, safe=""), json.dumps(secret)[1:-1])
    }
    # Longest first: one may be part of another.
    return tuple(sorted((f for f in forms if len(f) >= _LEAST_LENGTH), key=len, reverse=True))


def _log_end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    sys.stderr.write(redacted("".join(traceback.format_exception(kind, error, trace))))
