"""The OpenAPI description of the service."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from backtest_pipeline.service.problems import ProblemBody


def described(app: FastAPI) -> dict[str, Any]:
    """The description of an application's routes and of what they answer, problems included."""
    if app.openapi_schema is None:
        found = get_openapi(
            title=app.title, version=app.version, summary=app.summary, routes=app.routes
        )
        problem = ProblemBody.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas = found["components"]["schemas"]
        schemas.update({**problem.pop("$defs"), "Problem": problem})
        app.openapi_schema = found
    return app.openapi_schema
