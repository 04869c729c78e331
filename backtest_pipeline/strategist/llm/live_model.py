"""The provider of a language model, through pydantic-ai; the only module that speaks to one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from backtest_pipeline.market.errors import ConfigurationError
from backtest_pipeline.strategist.llm.budget import DayBudget, DayLimits, OwnBudget
from backtest_pipeline.strategist.llm.conversation import Answer, Ask, Turn, printable, sent
from backtest_pipeline.strategist.llm.settings import LlmSettings
from backtest_pipeline.strategist.proposal import NOTHING_USED, ModelUse

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelMessage, ModelResponse
    from pydantic_ai.models import Model

_CHARS_A_TOKEN = 3  # fewer than in any language that prompts and numbers are written in
_MILLION = 1_000_000
_HIDDEN = "[key]"
_ONE_CALL = ModelUse(calls=1)
# What an HTTP status says, and whether another call may go better.
_STATUSES = {
    400: ("the provider refuses the request; check BACKTEST_LLM_MODEL", False),
    401: ("the provider refuses the key; check BACKTEST_LLM_API_KEY", False),
    403: ("the provider refuses the key this model; check BACKTEST_LLM_API_KEY", False),
    404: ("the provider has no such model; check BACKTEST_LLM_MODEL", False),
    408: ("the provider waited too long for the request", True),
    413: ("the request is too large for the provider; show fewer bars", False),
    429: ("the provider's limit is reached", True),
}


class LiveModel:
    """A model that is asked over the network; each conversation has its deadline.

    Whatever a call ends in is an `Answer`. What a provider says of a failed call is not quoted: it
    may quote the key.

    Args:
        settings: provider, model, key and limits.
        budget: counts what each call uses today; one of its own unless it is shared.
        model: a model of pydantic-ai in place of the one of the settings, for tests.
        wait_s: seconds before the second call after a failed one; twice as long before each other.

    Raises:
        ConfigurationError: where no model or no key is set, or the extra `llm` is not installed.
    """

    is_recorded = False

    def __init__(
        self,
        settings: LlmSettings,
        *,
        budget: DayBudget | None = None,
        model: Model | None = None,
        wait_s: float = 1.0,
    ) -> None:
        if model is None:
            settings.require_model()
        try:
            import pydantic_ai
        except ImportError as error:
            raise ConfigurationError(
                "the strategist llm needs the extra `llm`; install it with pip install "
                "'backtest-pipeline[llm]'"
            ) from error
        del pydantic_ai
        self.name = settings.llm_model
        self.max_calls = settings.llm_max_calls
        self._settings, self._model, self._wait_s = settings, model, wait_s
        self._budget = budget or OwnBudget()

    def begin(self) -> Ask:
        """A conversation with its own deadline."""
        return _Calls(self._settings, self._model, self._wait_s, self._budget)


class _Calls:
    """The calls of one conversation."""

    def __init__(
        self, settings: LlmSettings, model: Model | None, wait_s: float, budget: DayBudget
    ) -> None:
        self._settings, self._model, self._wait_s = settings, model, wait_s
        self._budget = budget
        self._limits = DayLimits(settings.llm_tokens_per_day, settings.llm_usd_per_day)
        self._ends = time.monotonic() + settings.llm_deadline_s

    def __call__(self, turns: list[Turn]) -> Answer:
        """The next answer; raises nothing that a provider can cause."""
        messages = sent(turns)
        failed = sum(turn.role == "failure" for turn in turns)
        wait = self._wait_s * 2 ** (failed - 1) if turns[-1].role == "failure" else 0.0
        left = self._ends - time.monotonic()
        if left <= wait:
            return self._too_late()
        if wait:
            time.sleep(wait)
        most = self._most(messages)
        reserved = self._budget.reserve(self._settings.llm_model, most, self._limits)
        if reserved.settle is None:
            said = self._over_budget(reserved.used, most)
            return Answer(None, said, is_final=True, over_budget=True)
        answer = self._answered(messages, left - wait)
        reserved.settle(answer.use)
        return answer

    def _too_late(self, use: ModelUse = NOTHING_USED) -> Answer:
        said = f"no answer within {self._settings.llm_deadline_s:g} s (BACKTEST_LLM_DEADLINE_S)"
        return Answer(None, said, is_final=True, use=use)

    def _answered(self, messages: Sequence[Turn], left_s: float) -> Answer:
        from pydantic_ai.exceptions import ModelConnectionError, ModelHTTPError, UserError

        try:
            response = asyncio.run(asyncio.wait_for(self._request(messages, left_s), left_s))
        except TimeoutError:
            return self._too_late(self._most(messages))
        except ModelHTTPError as error:
            status = error.status_code
            said, may_help = _STATUSES.get(status, ("the provider failed", status >= 500))
            return Answer(None, f"HTTP {status}: {said}", not may_help, _ONE_CALL)
        except ModelConnectionError as error:
            kind = type(error.__cause__ or error).__name__
            return Answer(None, f"the provider cannot be reached ({kind})", use=_ONE_CALL)
        except UserError as error:
            said = self._without_key(printable(str(error)))
            return Answer(None, f"the model cannot be asked: {said}", is_final=True)
        except Exception as error:  # the client reads a stranger's response, and may fail anywhere
            said = f"the provider's response cannot be read ({type(error).__name__})"
            return Answer(None, said, use=self._most(messages))
        usage = response.usage
        used = self._most(messages)
        if not usage.unmeasured_requests:
            tokens = usage.input_tokens, usage.output_tokens
            used = ModelUse(1, *tokens, self._cost(*tokens))
        return Answer(self._without_key(response.text or ""), use=used)

    def _most(self, messages: Sequence[Turn]) -> ModelUse:
        """The most that a call can use; it counts where what was used is not known."""
        asked = sum(len(message.text) for message in messages) // _CHARS_A_TOKEN
        answered = self._settings.llm_max_output_tokens
        return ModelUse(1, asked, answered, self._cost(asked, answered))

    async def _request(self, messages: Sequence[Turn], left_s: float) -> ModelResponse:
        from pydantic_ai.direct import model_request
        from pydantic_ai.settings import ModelSettings

        # The calls are counted here, so none is repeated out of sight.
        given = ModelSettings(
            max_tokens=self._settings.llm_max_output_tokens, max_retries=0, timeout=left_s
        )
        if self._model is not None:
            return await model_request(self._model, _as_messages(messages), model_settings=given)
        import httpx2

        # A client of its own: one that outlives its event loop cannot be closed any more.
        async with httpx2.AsyncClient(timeout=left_s) as client:
            model = self._opened(client)
            return await model_request(model, _as_messages(messages), model_settings=given)

    def _opened(self, client: Any) -> Model:
        from pydantic_ai.models import infer_model
        from pydantic_ai.providers import Provider, infer_provider_class

        settings = self._settings

        def provider(name: str) -> Provider[Any]:
            kind: Any = infer_provider_class(name)
            key = settings.llm_api_key
            return kind(
                api_key=key.get_secret_value() if key else None,
                base_url=settings.llm_base_url or None,
                http_client=client,
            )

        return infer_model(settings.llm_model, provider)

    def _over_budget(self, used: ModelUse, call: ModelUse) -> str:
        """How the next call might use more than is left today."""
        settings = self._settings
        if used.tokens + call.tokens > settings.llm_tokens_per_day:
            return (
                f"the day's budget of {settings.llm_tokens_per_day:,} tokens is used up: "
                f"{used.tokens:,} used, up to {call.tokens:,} for this call "
                "(BACKTEST_LLM_TOKENS_PER_DAY)"
            )
        return (
            f"the day's budget of {settings.llm_usd_per_day:g} USD is used up: "
            f"{used.cost_usd:.4f} spent, up to {call.cost_usd:.4f} for this call "
            "(BACKTEST_LLM_USD_PER_DAY)"
        )

    def _cost(self, input_tokens: int, output_tokens: int) -> float:
        """US dollars by the price list, or by the setting for a model that is not in it."""
        from genai_prices import Usage, calc_price

        provider, _, name = self._settings.llm_model.partition(":")
        try:
            price = calc_price(
                Usage(input_tokens=input_tokens, output_tokens=output_tokens),
                model_ref=name,
                provider_id="openai" if provider == "openai-chat" else provider,
            )
        except LookupError:
            rate = self._settings.llm_usd_per_million_tokens
            return (input_tokens + output_tokens) * rate / _MILLION
        return float(price.total_price)

    def _without_key(self, text: str) -> str:
        """A text from outside without the key, in case that a server says it back."""
        key = self._settings.llm_api_key
        secret = key.get_secret_value() if key else ""
        return text.replace(secret, _HIDDEN) if secret else text


def _as_messages(turns: Sequence[Turn]) -> list[ModelMessage]:
    from pydantic_ai.messages import (
        ModelRequest,
        ModelResponse,
        SystemPromptPart,
        TextPart,
        UserPromptPart,
    )

    kinds = {"system": SystemPromptPart, "user": UserPromptPart}
    messages: list[ModelMessage] = []
    for turn in turns:
        if turn.role == "assistant":
            messages.append(ModelResponse(parts=[TextPart(turn.text)]))
            continue
        part = kinds[turn.role](turn.text)
        if messages and isinstance(messages[-1], ModelRequest):
            messages[-1] = ModelRequest(parts=[*messages[-1].parts, part])
        else:
            messages.append(ModelRequest(parts=[part]))
    return messages
