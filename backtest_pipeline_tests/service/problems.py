"""Problems that the service answers with."""

from __future__ import annotations

from typing import Any

from backtest_pipeline.service.problems import KINDS, TYPE

WORDS_OF_THE_INSIDE = ("Traceback", "SELECT", "psycopg", "sqlalchemy", ".py", "postgresql://")


def told(answer: Any, code: str) -> dict[str, Any]:
    """The problem, which is one of this kind in every respect."""
    body = answer.json()
    kind = KINDS[code]
    assert body["code"] == code, body
    assert answer.status_code == body["status"] == kind.status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert (body["type"], body["title"]) == (TYPE + code, kind.title)
    assert body["request_id"] == answer.headers["X-Request-ID"]
    assert body["instance"] == answer.request.url.path
    assert body["detail"]
    for word in WORDS_OF_THE_INSIDE:
        assert word not in answer.text
    return body
