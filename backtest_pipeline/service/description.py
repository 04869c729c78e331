"""The OpenAPI description of the service."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from backtest_pipeline.service.problems import ProblemBody


def openapi_schema(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of an application, problems included."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, summary=app.summary, routes=app.routes
        )
        problem = ProblemBody.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas = schema["components"]["schemas"]
        schemas.update({**problem.pop("$defs"), "Problem": problem})
        app.openapi_schema = schema
    return app.openapi_schema
