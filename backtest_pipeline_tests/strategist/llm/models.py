"""Models that tests ask: those of pydantic-ai, and a server that speaks as providers do."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from backtest_pipeline.market.features.derive import with_indicators
from backtest_pipeline.plans.plan import Plan
from backtest_pipeline.plans.vocabulary import ReplanReason
from backtest_pipeline.strategist.known import Known, known_at
from backtest_pipeline.strategist.llm.budget import DayBudget
from backtest_pipeline.strategist.llm.live_model import LiveModel
from backtest_pipeline.strategist.llm.settings import LlmSettings
from backtest_pipeline.strategist.regimes import READS
from backtest_pipeline_tests.strategist.markets import random_market

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelMessage, ModelResponse
    from pydantic_ai.models.function import AgentInfo

MARKET = with_indicators(random_market(2, 260, seed=11), (*READS, "rsi_14"))
KEY = "sk-secret-9f8e7d6c5b4a"
GOOD: dict[str, Any] = {
    "regime": "bull",
    "stance": "active",
    "triggers": [
        {
            "symbol": "S-0",
            "timeframe": "1D",
            "category": "trend_continuation",
            "direction": "long",
            "entry": "close > ema_50 and crosses_above(rsi_14, 50)",
            "exit": "close < ema_50",
            "stop_loss_pct": 6.0,
        },
        {
            "symbol": "S-1",
            "timeframe": "1D",
            "category": "mean_reversion",
            "direction": "long",
            "strategy": "rsi_mean_revert",
            "params": {"lower": 25},
            "stop_loss_pct": 8.0,
        },
        {
            "symbol": "S-0",
            "timeframe": "1D",
            "category": "risk_reduce",
            "direction": "both",
            "exit": "rsi_14 > 85",
            "exit_fraction": 0.5,
        },
    ],
    "limits": {"max_position_risk_pct": 2.0, "max_daily_loss_pct": 3.0},
    "sizing": {"mode": "fixed", "fraction": 0.2},
    "max_trades_per_day": 4,
    "allowed_directions": ["long"],
}


def known(
    previous: Plan | None = None, day: int = 250, reason: ReplanReason = ReplanReason.NEW_DAY
) -> Known:
    """What is known of the market after some days."""
    return known_at(
        {"1D": MARKET},
        int(MARKET.ts[day]),
        reasons=(reason,),
        valid_for=timedelta(days=7),
        previous=previous,
    )


def settings(**given: Any) -> LlmSettings:
    """Settings of a model that is not asked over the network, unless other ones are given."""
    return LlmSettings(**{"llm_model": "openai:gpt-5.6", "llm_api_key": KEY, **given})


@dataclass
class Scripted:
    """A model that gives some texts in turn, the last again and again.

    Attributes:
        texts: what it says; text of an exception is raised by the model.
        asked: the messages of each call.
    """

    texts: tuple[str, ...]
    asked: list[list[ModelMessage]] = field(default_factory=list)

    def model(self, budget: DayBudget | None = None, **given: Any) -> LiveModel:
        """The model, asked through the real client."""
        from pydantic_ai.models.function import FunctionModel

        fixed = FunctionModel(self._say)
        return LiveModel(settings(**given), budget=budget, model=fixed, wait_s=0)

    def said(self) -> list[str]:
        """The texts of the first call."""
        return [str(getattr(part, "content", "")) for part in self.asked[0][0].parts]

    def _say(self, messages: list[ModelMessage], _: AgentInfo) -> ModelResponse:
        from pydantic_ai.messages import ModelResponse, TextPart

        self.asked.append(messages)
        return ModelResponse([TextPart(self.texts[min(len(self.asked), len(self.texts)) - 1])])


def scripted(*texts: str | dict[str, Any]) -> Scripted:
    """A model that gives these texts in turn, objects as JSON."""
    return Scripted(tuple(t if isinstance(t, str) else json.dumps(t) for t in texts))


Respond = Callable[[str, Any], tuple[int, str]]


@dataclass
class ProviderServer:
    """A server that speaks as the providers do.

    Attributes:
        url: its address.
        requests: path, headers and body of each request.
    """

    url: str
    requests: list[tuple[str, dict[str, str], Any]]


def completion(path: str, text: str) -> str:
    """The body of a good response with this text, as the provider of the path sends it."""
    usage = {"input_tokens": 1000, "output_tokens": 200}
    if path.endswith("/messages"):
        body: dict[str, Any] = {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "claude-opus-5",
            "content": [{"type": "text", "text": text}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": usage,
        }
    elif path.endswith("/responses"):
        content = [{"type": "output_text", "text": text, "annotations": []}]
        message = {"type": "message", "id": "m", "role": "assistant", "status": "completed"}
        body = {
            "id": "resp_1",
            "object": "response",
            "created_at": 1_790_000_000,
            "model": "gpt-5.6",
            "status": "completed",
            "output": [{**message, "content": content}],
            "parallel_tool_calls": False,
            "tool_choice": "auto",
            "tools": [],
            "usage": {
                **usage,
                "total_tokens": 1200,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens_details": {"reasoning_tokens": 0},
            },
        }
    else:
        body = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1_790_000_000,
            "model": "gpt-5.6",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text},
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 1000, "completion_tokens": 200, "total_tokens": 1200},
        }
    return json.dumps(body)


@contextmanager
def provider(respond: Respond, *, wait_s: float = 0) -> Iterator[ProviderServer]:
    """A provider on this machine.

    Args:
        respond: status and body for a path and the headers of a request.
        wait_s: seconds that it waits before each response.
    """
    seen: list[tuple[str, dict[str, str], Any]] = []
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            seen.append((self.path, headers, json.loads(body)))
            ended.wait(wait_s) if wait_s else time.sleep(0)
            status, text = respond(self.path, headers)
            data = text.encode()
            try:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            except OSError:  # the client did not wait
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield ProviderServer(f"http://127.0.0.1:{server.server_port}", seen)
        finally:
            ended.set()
            server.shutdown()
            thread.join()
