"""Whatever is sent, the service answers as it says that it does.

The suite sends a few requests to each route; `make fuzz-api` sends many, others each time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from backtest_pipeline_tests.service.conftest import QUESTION, Store, app_on, bearing

EXAMPLES = int(os.environ.get("BACKTEST_FUZZ_EXAMPLES", "5"))
UNHURRIED = [HealthCheck.too_slow, HealthCheck.filter_too_much]
# What computing may fail at without the service being at fault; nothing else may.
EXCUSED = {"RUN_ENGINE_ERROR", "DATA_SOURCE_ERROR"}
COMPUTING = {f"/backtest/{kind}" for kind in ("run", "walkforward", "portfolio", "optimize")}


@pytest.fixture(scope="module")
def fuzzed(store: Store) -> Iterator[TestClient]:
    headers = bearing(store.key())
    with TestClient(app_on(store), base_url="http://localhost", headers=headers) as client:
        assert client.post("/backtest/run", json=QUESTION).status_code == 200
        yield client


def test_every_answer_is_as_the_description_says(fuzzed: TestClient) -> None:
    # Here, because every process of a session imports this file, and one runs it.
    import schemathesis
    from schemathesis import GenerationMode
    from schemathesis.checks import load_all_checks
    from schemathesis.core.result import Ok

    load_all_checks()
    description = fuzzed.get("/openapi.json").json()
    schema = schemathesis.openapi.from_dict(description)
    seen: set[int] = set()
    for found in schema.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()
        cases = st.one_of(
            operation.as_strategy(GenerationMode.POSITIVE),
            operation.as_strategy(GenerationMode.NEGATIVE),
        )
        _fuzz(cases, fuzzed, seen)
    assert {200, 401, 404, 422} & seen >= {200, 422}


def _fuzz(cases: st.SearchStrategy[Any], client: TestClient, seen: set[int]) -> None:
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_headers_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

    checks = [
        status_code_conformance,
        content_type_conformance,
        response_headers_conformance,
        response_schema_conformance,
    ]

    @settings(
        max_examples=EXAMPLES,
        suppress_health_check=UNHURRIED,
    )
    @given(cases)
    def check(case: Any) -> None:
        sent = case.as_transport_kwargs()
        sent.pop("cookies")
        sent["content"] = sent.pop("data", None)
        answer = client.request(**sent)
        seen.add(answer.status_code)
        case.validate_response(answer, checks=checks)
        if answer.status_code >= 500:
            assert case.path in COMPUTING, answer.text
            assert answer.json()["code"] in EXCUSED, answer.text

    check()
