"""Numbers and dates that no market has are refused, or answered, and never an internal error."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

import pytest
from starlette.testclient import TestClient

from backtest_pipeline_tests.service.conftest import QUESTION, Store, app_on, bearing

ABSURD: dict[str, tuple[Any, ...]] = {
    "number": (1e9, 1e300),
    "integer": (2**63, 10**30),
    "date": ("0001-01-01", "9999-12-31"),
    "date-time": ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"),
}
LISTS = {"fast": [3, 5], "slow": [8, 13]}
QUESTIONS: dict[str, dict[str, Any]] = {
    "run": QUESTION,
    "walkforward": {**QUESTION, "params": LISTS, "train_days": 60, "test_days": 20},
    "portfolio": {**QUESTION, "symbols": ["AAA", "BBB"]},
    "optimize": {**QUESTION, "params": LISTS},
}
del QUESTIONS["portfolio"]["symbol"]


@pytest.fixture(scope="module")
def asked(store: Store) -> Iterator[TestClient]:
    headers = bearing(store.key())
    with TestClient(app_on(store), base_url="http://localhost", headers=headers) as client:
        yield client


def leaves(
    schema: Mapping[str, Any], known: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Each field of a body that is a number or a date, with its kind; choices one by one."""
    if "$ref" in schema:
        yield from leaves(known[schema["$ref"].rpartition("/")[2]], known, path)
    for choice in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from leaves(choice, known, path)
    for name, inner in schema.get("properties", {}).items():
        yield from leaves(inner, known, (*path, name))
    items = schema.get("items")
    for inner in (*schema.get("prefixItems", ()), *([items] if isinstance(items, dict) else [])):
        yield from leaves(inner, known, (*path, "0"))
    if isinstance(inner := schema.get("additionalProperties"), Mapping):
        yield from leaves(inner, known, (*path, "fast" if path[-1] == "params" else "AAA"))
    kind = schema.get("format", schema.get("type"))
    if kind in ABSURD:
        yield path, kind


def with_value(body: Mapping[str, Any], path: tuple[str, ...], value: Any, modes: Any) -> Any:
    """The body with this value; a sizing of the mode that has the field."""
    whole = deepcopy(dict(body))
    inner: Any = whole
    for depth, name in enumerate(path):
        rest = path[depth + 1 :]
        if "0" in rest[:1] or not rest:
            for _ in rest:
                value = [value]
            inner[name] = value
            break
        inner = inner.setdefault(name, {})
    if path[0] == "sizing":
        whole["sizing"]["mode"] = modes[path[1]]
    return whole


def test_absurd_values_in_a_body_are_never_an_internal_error(asked: TestClient) -> None:
    description = asked.get("/openapi.json").json()
    known = description["components"]["schemas"]
    modes = {
        name: part["properties"]["mode"]["const"]
        for part in known.values()
        if "const" in part.get("properties", {}).get("mode", {})
        for name in part["properties"]
    }
    tried: set[tuple[str, ...]] = set()  # what several routes take is the same field
    for route, question in QUESTIONS.items():
        body = description["paths"][f"/backtest/{route}"]["post"]["requestBody"]
        found = dict(leaves(body["content"]["application/json"]["schema"], known))
        for path in found.keys() - tried:
            for value in ABSURD[found[path]]:
                response = asked.post(
                    f"/backtest/{route}",
                    content=json.dumps(with_value(question, path, value, modes)),
                    headers={"Content-Type": "application/json"},
                )
                assert response.status_code in (200, 422), (route, path, value, response.text)
        tried |= found.keys()
    assert {("train_days",), ("sizing", "lookback"), ("dates", "0", "0"), ("start",)} <= tried
    assert len(tried) >= 40


def test_absurd_values_in_an_address_are_never_an_internal_error(asked: TestClient) -> None:
    description = asked.get("/openapi.json").json()
    run = asked.post("/backtest/run", json=QUESTION).json()["run_id"]
    tried = set()
    for address, operations in description["paths"].items():
        for given in operations.get("get", {}).get("parameters", ()):
            kinds = dict(leaves(given["schema"], {}, (given["name"],)))
            for kind in kinds.values():
                for value in ABSURD[kind]:
                    response = asked.get(
                        address.replace("{run_id}", run), params={given["name"]: value}
                    )
                    assert response.status_code in (200, 422), (address, given["name"], value)
                tried.add((address, given["name"]))
    assert ("/backtest/jobs", "created_from") in tried
    assert len(tried) > 10
