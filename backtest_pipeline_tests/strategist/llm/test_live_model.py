from __future__ import annotations

import json
import logging
import socket
import sys
import time
from typing import Any

import pytest

from backtest_pipeline.market.errors import ConfigurationError
from backtest_pipeline.strategist.llm.budget import OwnBudget
from backtest_pipeline.strategist.llm.live_model import LiveModel
from backtest_pipeline.strategist.llm.llm_strategist import LlmStrategist
from backtest_pipeline.strategist.proposal import ModelUse, Origin, Proposal
from backtest_pipeline_tests.strategist.llm.models import (
    GOOD,
    KEY,
    completion,
    known,
    provider,
    scripted,
    settings,
)

PATHS = {
    "anthropic:claude-opus-5": "",
    "openai:gpt-5.6": "/v1",
    "openai-chat:gpt-5.6": "/v1",
}


def planned(model: str, url: str, **given: Any) -> Proposal:
    own = settings(llm_model=model, llm_base_url=f"{url}{PATHS[model]}", **given)
    return LlmStrategist(LiveModel(own, wait_s=0)).plan(known())


@pytest.mark.parametrize("model", PATHS)
def test_each_provider_is_asked_with_the_key_and_its_answer_counted(model: str) -> None:
    with provider(lambda path, _: (200, completion(path, json.dumps(GOOD)))) as server:
        proposal = planned(model, server.url)
    assert (proposal.origin, proposal.reason) == (Origin.VALID, "")
    assert (proposal.use.calls, proposal.use.input_tokens, proposal.use.output_tokens) == (
        *(1, 1000, 200),
    )
    assert proposal.use.cost_usd > 0
    ((_, headers, body),) = server.requests
    assert KEY in headers.get("authorization", "") + headers.get("x-api-key", "")
    assert "You plan the trading of a book" in json.dumps(body)


@pytest.mark.parametrize(
    ("status", "calls", "reason"),
    [
        (400, 1, "HTTP 400: the provider refuses the request; check BACKTEST_LLM_MODEL"),
        (401, 1, "HTTP 401: the provider refuses the key; check BACKTEST_LLM_API_KEY"),
        (404, 1, "HTTP 404: the provider has no such model"),
        (429, 3, "HTTP 429: the provider's limit is reached"),
        (529, 3, "HTTP 529: the provider failed"),
    ],
)
def test_a_provider_that_refuses_ends_in_a_plan_and_the_reason(
    status: int, calls: int, reason: str
) -> None:
    said = json.dumps({"error": {"type": "x", "message": f"Incorrect API key: {KEY}"}})
    with provider(lambda *_: (status, said)) as server:
        proposal = planned("anthropic:claude-opus-5", server.url)
    assert proposal.origin is Origin.FALLBACK
    assert proposal.reason.startswith(reason)
    assert (proposal.use.calls, len(server.requests)) == (calls, calls)
    assert KEY not in repr(proposal)


def test_a_provider_that_is_down_ends_in_a_plan_and_the_reason() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        proposal = planned("openai:gpt-5.6", f"http://127.0.0.1:{nobody.getsockname()[1]}")
    assert proposal.origin is Origin.FALLBACK
    assert proposal.reason == "the provider cannot be reached (APIConnectionError)"
    assert proposal.use == ModelUse(calls=3)


def test_a_provider_that_is_slow_is_waited_for_until_the_deadline_of_all_calls() -> None:
    start = time.monotonic()
    with provider(lambda path, _: (200, completion(path, "")), wait_s=30) as server:
        proposal = planned("openai:gpt-5.6", server.url, llm_deadline_s=2)
    assert time.monotonic() - start < 20
    assert proposal.reason == "no answer within 2 s (BACKTEST_LLM_DEADLINE_S)"
    # What a call used that was not waited for is not known, so that the most counts.
    assert proposal.use.calls == 1
    assert proposal.use.output_tokens == 8_000


@pytest.mark.parametrize("body", ["", "<html>busy</html>", "{}", "[]", '{"content": [1]}'])
@pytest.mark.parametrize("model", PATHS)
def test_whatever_a_server_responds_ends_in_a_plan(model: str, body: str) -> None:
    with provider(lambda *_: (200, body)) as server:
        proposal = planned(model, server.url, llm_max_calls=1)
    assert proposal.origin is Origin.FALLBACK
    assert proposal.reason
    assert proposal.use.calls == 1


def test_a_server_that_says_the_key_back_leaves_it_nowhere(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)

    def echo(path: str, headers: dict[str, str]) -> tuple[int, str]:
        return 200, completion(path, f"Your key is {headers['authorization']}")

    model = LiveModel(settings(llm_model="openai-chat:gpt-5.6"), wait_s=0)
    with provider(echo) as server:
        proposal = planned("openai-chat:gpt-5.6", server.url)
    assert "Bearer [key]" in (proposal.transcript or "")
    everywhere = f"{proposal!r} {model!r} {model.__dict__} {caplog.text}"
    assert KEY not in everywhere
    assert "sk-secret" not in everywhere


def test_a_failed_call_is_tried_again_and_an_answer_after_it_taken() -> None:
    statuses = iter((503, 200))
    with provider(lambda path, _: (next(statuses), completion(path, json.dumps(GOOD)))) as server:
        proposal = planned("anthropic:claude-opus-5", server.url)
    assert (proposal.origin, proposal.use.calls) == (Origin.RETRIED, 2)
    assert proposal.reason == "HTTP 503: the provider failed"


def test_a_wait_that_would_pass_the_deadline_is_not_begun() -> None:
    from pydantic_ai.messages import ModelResponse, TextPart
    from pydantic_ai.models.function import FunctionModel

    failing = LiveModel(
        settings(llm_deadline_s=5),
        model=FunctionModel(lambda *_: ModelResponse([TextPart("x")])),
        wait_s=3600,
    )
    ask = failing.begin()
    from backtest_pipeline.strategist.llm.conversation import Turn

    answer = ask([Turn("system", "s"), Turn("user", "q"), Turn("failure", "HTTP 429")])
    assert (answer.is_final, answer.failure) == (
        True,
        "no answer within 5 s (BACKTEST_LLM_DEADLINE_S)",
    )


def test_a_call_that_could_exceed_the_money_of_the_day_is_not_made() -> None:
    model = scripted(GOOD)
    budget = OwnBudget(ModelUse(9, 100, 100, 0.99))
    proposal = LlmStrategist(model.model(budget, llm_usd_per_day=1.0)).plan(known())
    assert proposal.reason.startswith("the day's budget of 1 USD is used up: 0.9900 spent, up to")
    assert model.asked == []


def test_a_model_without_a_price_costs_what_the_setting_says() -> None:
    for price, spent in ((50.0, 0.5), (0.0, 0.0)):
        given = {"llm_model": "openai:of-my-own", "llm_usd_per_million_tokens": price}
        use = LlmStrategist(scripted(GOOD).model(**given)).plan(known()).use
        assert use.cost_usd == pytest.approx(use.tokens * price / 1e6)
        assert (use.cost_usd > 0) == (spent > 0)


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydantic_ai", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'backtest-pipeline\[llm\]'"):
        LiveModel(settings())
    with pytest.raises(ConfigurationError, match="BACKTEST_LLM_MODEL"):
        LiveModel(settings(llm_model=""))
