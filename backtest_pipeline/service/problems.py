"""Error responses of the service: RFC 9457 problems with a code.

`KINDS` lists them all. An error of this project maps to one by its class, in the process that
raised it; nothing else of an error ever reaches a client.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response

from backtest_pipeline.market import errors

MEDIA_TYPE = "application/problem+json"
TYPE = "urn:backtest-pipeline:problem:"


@dataclass(frozen=True)
class Kind:
    """A kind of problem: its HTTP status, and what it means."""

    status: int
    title: str


KINDS: Mapping[str, Kind] = {
    "BAD_REQUEST": Kind(400, "Malformed request"),
    "BAD_RANGE": Kind(422, "Invalid date range"),
    "BAD_SYMBOL": Kind(422, "Unknown symbol"),
    "BAD_SYMBOLS": Kind(422, "Symbols do not make a portfolio"),
    "UNKNOWN_STRATEGY": Kind(422, "Unknown strategy"),
    "BAD_PARAMS": Kind(422, "Invalid parameter"),
    "EMPTY_GRID": Kind(422, "Parameter grid is empty"),
    "GRID_TOO_LARGE": Kind(422, "Parameter grid is too large"),
    "NOT_ENOUGH_BARS": Kind(422, "Not enough bars"),
    "NO_FEATURES": Kind(422, "No features are stored"),
    "LOOKS_AHEAD": Kind(422, "Strategy looks ahead"),
    "UNAUTHORIZED": Kind(401, "Not authenticated"),
    "FORBIDDEN": Kind(403, "Not allowed"),
    "NOT_FOUND": Kind(404, "Not found"),
    "JOB_NOT_FOUND": Kind(404, "Unknown job"),
    "RUN_NOT_FOUND": Kind(404, "Unknown run"),
    "METHOD_NOT_ALLOWED": Kind(405, "Method not allowed"),
    "REQUEST_TIMEOUT": Kind(408, "Request was not sent in time"),
    "CONFLICT": Kind(409, "Not allowed in its current state"),
    "RESULT_PATH_MISSING": Kind(410, "Result files are missing"),
    "PAYLOAD_TOO_LARGE": Kind(413, "Request body is too large"),
    "UNSUPPORTED_MEDIA_TYPE": Kind(415, "Request body is not JSON"),
    "RATE_LIMITED": Kind(429, "Too many requests"),
    "ARTIFACT_CORRUPT": Kind(500, "Stored file is damaged"),
    "RUN_ENGINE_ERROR": Kind(500, "Computation failed"),
    "DATA_SOURCE_ERROR": Kind(502, "Bars are not available"),
    "STORE_UNAVAILABLE": Kind(503, "Store is not available"),
    "IDENTITY_UNAVAILABLE": Kind(503, "OpenID provider is not available"),
    "RUN_TIMEOUT": Kind(504, "Computation timed out"),
}

# Responses common to routes with authentication, to those with a body, and to those that compute.
AUTHENTICATED = (
    *("BAD_PARAMS", "UNAUTHORIZED", "FORBIDDEN", "RATE_LIMITED"),
    *("ARTIFACT_CORRUPT", "RUN_ENGINE_ERROR", "STORE_UNAVAILABLE", "IDENTITY_UNAVAILABLE"),
)
SENT = ("BAD_REQUEST", "REQUEST_TIMEOUT", "PAYLOAD_TOO_LARGE", "UNSUPPORTED_MEDIA_TYPE")
COMPUTING = (
    *SENT,
    *("BAD_RANGE", "BAD_SYMBOL", "BAD_SYMBOLS", "UNKNOWN_STRATEGY"),
    *("EMPTY_GRID", "GRID_TOO_LARGE", "NOT_ENOUGH_BARS", "DATA_SOURCE_ERROR"),
    *("NO_FEATURES", "LOOKS_AHEAD", "RUN_TIMEOUT"),
)


class Problem(Exception):
    """Ends a request with an error response.

    Attributes:
        code: a key of `KINDS`.
        detail: what is wrong and what to do, for people.
        headers: additional response headers.
        errors: the invalid fields of a request that does not validate.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        headers: Mapping[str, str] | None = None,
        errors: Sequence[Mapping[str, str]] = (),
    ) -> None:
        super().__init__(code, detail)
        self.code, self.detail = code, detail
        self.headers, self.errors = dict(headers or {}), tuple(errors)

    @property
    def kind(self) -> Kind:
        return KINDS[self.code]


class InvalidPart(BaseModel):
    """An invalid field of a request."""

    where: str = Field(description="`body.costs.slippage_bps`, `query.limit`", examples=["body.tf"])
    message: str


class ProblemBody(BaseModel):
    """RFC 9457 problem details; `code` is for programs and `detail` for people."""

    model_config = ConfigDict(title="Problem")

    type: str = Field(examples=[f"{TYPE}BAD_SYMBOL"])
    title: str
    status: int
    detail: str
    instance: str = Field(description="Path of the request.")
    code: str = Field(json_schema_extra={"enum": [*KINDS]})
    request_id: str = Field(description="Also in the header X-Request-ID and in the log.")
    errors: list[InvalidPart] = Field(default_factory=list)


@dataclass(frozen=True)
class Failure:
    """An error as it leaves a worker process: the class that it had, a code, and words for people.

    Attributes:
        raised: name of the exception's class, for the log.
        code: a key of `KINDS`.
        detail: what a client may read.
        log_detail: further detail, for the log only.
    """

    raised: str
    code: str
    detail: str
    log_detail: str = field(default="", repr=False)

    def problem(self) -> Problem:
        return Problem(self.code, self.detail)


_SEE_READY = "the store is not available; /readyz says which part of it fails"


def failure_of(error: BaseException) -> Failure:
    """The failure that a client sees for an error; an unexpected one reveals nothing."""
    if isinstance(error, Problem):
        return Failure("Problem", error.code, error.detail)
    name = type(error).__name__
    if not isinstance(error, errors.BacktestError):
        return Failure(name, "RUN_ENGINE_ERROR", errors.SEE_LOG, repr(error))
    code, detail = error.code, str(error)
    if code == "STORE_UNAVAILABLE":
        return Failure(name, code, _SEE_READY, detail)
    return Failure(name, code, errors.public_message(error), detail)


def problem_response(problem: Problem, path: str, request_id: str) -> Response:
    """The error response for a problem at a path."""
    kind = problem.kind
    body = ProblemBody(
        type=TYPE + problem.code,
        title=kind.title,
        status=kind.status,
        detail=problem.detail,
        instance=path,
        code=problem.code,
        request_id=request_id,
        errors=[InvalidPart(**part) for part in problem.errors],
    )
    return JSONResponse(body.model_dump(), kind.status, problem.headers, MEDIA_TYPE)


def documented(*codes: str) -> dict[int | str, dict[str, Any]]:
    """The error responses of a route, for its OpenAPI description."""
    by_status: dict[int | str, list[str]] = {}
    for code in codes:
        by_status.setdefault(KINDS[code].status, []).append(code)
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {
            "description": ", ".join(names),
            "model": None,
            "content": {MEDIA_TYPE: {"schema": schema}},
        }
        for status, names in by_status.items()
    }
