"""Exception handlers: our errors, validation errors and HTTP errors become problems."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from backtest_pipeline.market.errors import BacktestError
from backtest_pipeline.market.field_problems import field_faults
from backtest_pipeline.service.problems import Problem, failure_of, problem_response

_log = logging.getLogger(__name__)
_OF_STATUS = {
    400: "BAD_REQUEST",
    401: "UNAUTHORIZED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    408: "REQUEST_TIMEOUT",
    413: "PAYLOAD_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
}
_NOT_JSON = "the body is not valid JSON, or its numbers or nesting are beyond what can be read"
_OF_FASTAPI = "There was an error parsing the body"
_OF_FIELD = {
    "symbol": "BAD_SYMBOL",
    "symbols": "BAD_SYMBOLS",
    "start": "BAD_RANGE",
    "end": "BAD_RANGE",
    "strategy": "UNKNOWN_STRATEGY",
}


def install_problem_handlers(app: FastAPI) -> None:
    """Install the handlers that turn expected errors into problem responses."""

    @app.exception_handler(Problem)
    def of_ours(request: Request, error: Problem) -> Response:
        return _respond(request, error)

    @app.exception_handler(BacktestError)
    def of_the_project(request: Request, error: BacktestError) -> Response:
        failure = failure_of(error)
        if failure.problem().kind.status >= 500:
            _log.error("%s: %s", failure.raised, failure.log_detail)
        return _respond(request, failure.problem())

    @app.exception_handler(RequestValidationError)
    def of_validation(request: Request, error: RequestValidationError) -> Response:
        body = getattr(request.scope.get("route"), "body_field", None)
        model = None if body is None else body.field_info.annotation
        return _respond(request, invalid(error.errors(), model))

    @app.exception_handler(HTTPException)
    def of_http(request: Request, error: HTTPException) -> Response:
        if error.status_code < 400:
            return Response(status_code=error.status_code, headers=error.headers)
        code = _OF_STATUS.get(error.status_code, "RUN_ENGINE_ERROR")
        detail = _NOT_JSON if error.detail == _OF_FASTAPI else error.detail
        return _respond(request, Problem(code, detail, error.headers))


def require_json(request: Request) -> None:
    """Raise a Problem if the content type of the body is not JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem("UNSUPPORTED_MEDIA_TYPE", "send the body as application/json")


def require_json_if_any(request: Request) -> None:
    """Raise a Problem if there is a body, and its content type is not JSON."""
    if request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers:
        require_json(request)


def invalid(errors: Iterable[Any], model: Any = None) -> Problem:
    """The problem of an invalid request; the first invalid field decides its code.

    Args:
        errors: of pydantic.
        model: the type of the body, whose fields are suggested for one that it has not.
    """
    parts = list(errors)
    if any(part["type"] == "json_invalid" for part in parts):
        return Problem("BAD_REQUEST", _NOT_JSON)
    faults = field_faults(parts, model)
    fields = [{"where": place, "message": said} for place, said in faults.items()]
    # A field that the body does not have says nothing of what the field means elsewhere.
    known = [part for part in parts if part["type"] != "extra_forbidden"]
    named = next((str(at) for part in known for at in part["loc"] if str(at) in _OF_FIELD), "")
    first = f"{fields[0]['where']}: {fields[0]['message']}"
    more = f" (and {len(fields) - 1} more)" if len(fields) > 1 else ""
    return Problem(_OF_FIELD.get(named, "BAD_PARAMS"), first + more, errors=fields)


def _respond(request: Request, problem: Problem) -> Response:
    return problem_response(problem, request.url.path, request.state.request_id)
