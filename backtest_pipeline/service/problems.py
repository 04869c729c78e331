"""What the service answers where it cannot do what was asked: RFC 9457 problems with a code.

`KINDS` is the whole list. Errors of this project become one of them by their class, in the
process that raised them; nothing else of an error ever reaches a client.
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
    "BAD_REQUEST": Kind(400, "The request cannot be read"),
    "BAD_RANGE": Kind(422, "The range of time cannot be computed"),
    "BAD_SYMBOL": Kind(422, "There is no such symbol"),
    "BAD_SYMBOLS": Kind(422, "These symbols do not make a portfolio"),
    "UNKNOWN_STRATEGY": Kind(422, "There is no such strategy"),
    "BAD_PARAMS": Kind(422, "A parameter cannot be used"),
    "EMPTY_GRID": Kind(422, "The grid holds no combination"),
    "GRID_TOO_LARGE": Kind(422, "The grid holds too many combinations"),
    "NOT_ENOUGH_BARS": Kind(422, "There are too few bars"),
    "UNAUTHORIZED": Kind(401, "Nobody that is known"),
    "FORBIDDEN": Kind(403, "Not allowed"),
    "NOT_FOUND": Kind(404, "There is nothing at this address"),
    "JOB_NOT_FOUND": Kind(404, "There is no such job"),
    "RUN_NOT_FOUND": Kind(404, "There is no such run"),
    "METHOD_NOT_ALLOWED": Kind(405, "This address takes other methods"),
    "CONFLICT": Kind(409, "Its state does not allow this"),
    "RESULT_PATH_MISSING": Kind(410, "The files of the result are gone"),
    "PAYLOAD_TOO_LARGE": Kind(413, "The body is too large"),
    "UNSUPPORTED_MEDIA_TYPE": Kind(415, "The body is not JSON"),
    "RATE_LIMITED": Kind(429, "Too many requests"),
    "RUN_ENGINE_ERROR": Kind(500, "It failed"),
    "DATA_SOURCE_ERROR": Kind(502, "The source of bars does not answer"),
    "STORE_UNAVAILABLE": Kind(503, "The store does not answer"),
    "IDENTITY_UNAVAILABLE": Kind(503, "The OpenID provider does not answer"),
    "RUN_TIMEOUT": Kind(504, "The computation took too long"),
}

# Responses common to routes with authentication, to those with a body, and to those that compute.
AUTHENTICATED = (
    *("BAD_PARAMS", "UNAUTHORIZED", "FORBIDDEN", "RATE_LIMITED"),
    *("RUN_ENGINE_ERROR", "STORE_UNAVAILABLE", "IDENTITY_UNAVAILABLE"),
)
SENT = ("BAD_REQUEST", "PAYLOAD_TOO_LARGE", "UNSUPPORTED_MEDIA_TYPE")
COMPUTING = (
    *SENT,
    *("BAD_RANGE", "BAD_SYMBOL", "BAD_SYMBOLS", "UNKNOWN_STRATEGY"),
    *("EMPTY_GRID", "GRID_TOO_LARGE", "NOT_ENOUGH_BARS", "DATA_SOURCE_ERROR"),
    "RUN_TIMEOUT",
)


class Problem(Exception):
    """Ends a request with an answer of this kind.

    Attributes:
        code: a key of `KINDS`.
        detail: what is wrong here, for people.
        headers: further headers of the answer.
        errors: where in the request it is wrong, for a request that does not validate.
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
    """A part of a request that does not validate."""

    where: str = Field(description="`body.costs.slippage_bps`, `query.limit`", examples=["body.tf"])
    message: str


class ProblemBody(BaseModel):
    """RFC 9457 problem details; `code` is for programs and `detail` for people."""

    model_config = ConfigDict(title="Problem")

    type: str = Field(examples=[f"{TYPE}BAD_SYMBOL"])
    title: str
    status: int
    detail: str
    instance: str = Field(description="The path that was asked for.")
    code: str = Field(json_schema_extra={"enum": [*KINDS]})
    request_id: str = Field(description="Also in X-Request-ID and in every line of the log.")
    errors: list[InvalidPart] = Field(default_factory=list)


@dataclass(frozen=True)
class Failure:
    """An error as it leaves a worker process: the class that it had, a code, and words for people.

    Attributes:
        raised: name of the exception's class, for the log.
        code: a key of `KINDS`.
        detail: what a client may read.
        told: what the log may hold besides.
    """

    raised: str
    code: str
    detail: str
    told: str = field(default="", repr=False)

    def problem(self) -> Problem:
        return Problem(self.code, self.detail)


_SEE_READY = "the store cannot be used now; /readyz says which part of it fails"


def failure_of(error: BaseException) -> Failure:
    """What an error of any kind means for a client; one that nobody foresaw tells nothing."""
    if isinstance(error, Problem):
        return Failure("Problem", error.code, error.detail)
    name = type(error).__name__
    if not isinstance(error, errors.BacktestError):
        return Failure(name, "RUN_ENGINE_ERROR", errors.SEE_LOG, repr(error))
    code, told = error.code, str(error)
    if code == "STORE_UNAVAILABLE":
        return Failure(name, code, _SEE_READY, told)
    return Failure(name, code, errors.public_message(error), told)


def problem_response(problem: Problem, path: str, request_id: str) -> Response:
    """The answer for a problem with what was asked for at a path."""
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
    """The answers of a route that are problems, for its OpenAPI description."""
    by_status: dict[int | str, list[str]] = {}
    for code in codes:
        by_status.setdefault(KINDS[code].status, []).append(code)
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {
            "description": ", ".join(found),
            "model": None,
            "content": {MEDIA_TYPE: {"schema": schema}},
        }
        for status, found in by_status.items()
    }
