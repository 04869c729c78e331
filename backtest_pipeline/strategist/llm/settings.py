"""Settings of language models: which one, how often, and for how much."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from backtest_pipeline.market.errors import ConfigurationError

PROVIDERS = ("anthropic", "openai", "openai-chat")


class LlmSettings(BaseSettings):
    """Settings of language models, for the strategist `llm`; one field per `BACKTEST_...` variable.

    Attributes:
        llm_model: provider and name of the model, such as `anthropic:claude-opus-5` or
            `openai:gpt-5.6`; `openai-chat:NAME` for a server that only has chat completions. Empty
            for none (docs/strategist.md).
        llm_api_key: key of the provider; a secret.
        llm_base_url: address of a server that speaks the provider's protocol; empty for the
            provider's own.
        llm_max_calls: most calls for one plan: the first, and others after answers that are no
            plan.
        llm_deadline_s: seconds that all calls for one plan may take together.
        llm_max_output_tokens: most tokens of one answer.
        llm_tokens_per_day: tokens that all plans of a UTC day may use; a call that could exceed
            them is not made.
        llm_usd_per_day: US dollars that all plans of a UTC day may cost; a call that could exceed
            them is not made.
        llm_usd_per_million_tokens: price of a model that has none in the price list, US dollars for
            a million tokens of questions or answers; 0 for a model of your own.
    """

    model_config = SettingsConfigDict(
        env_prefix="BACKTEST_", env_ignore_empty=True, extra="ignore", frozen=True
    )

    llm_model: str = ""
    llm_api_key: SecretStr | None = None
    llm_base_url: str = ""
    llm_max_calls: int = Field(default=3, ge=1, le=10)
    llm_deadline_s: float = Field(default=60, gt=0, le=3600)
    llm_max_output_tokens: int = Field(default=8_000, ge=100, le=200_000)
    llm_tokens_per_day: int = Field(default=500_000, ge=0)
    llm_usd_per_day: float = Field(default=5, ge=0)
    llm_usd_per_million_tokens: float = Field(default=50, ge=0)

    @field_validator("llm_model")
    @classmethod
    def _model_has_a_provider(cls, name: str) -> str:
        provider, _, model = name.partition(":")
        if name and (provider not in PROVIDERS or not model or not model.isprintable()):
            raise ValueError(
                f"must be PROVIDER:MODEL with one of {', '.join(PROVIDERS)}, such as "
                "anthropic:claude-opus-5"
            )
        return name

    @field_validator("llm_base_url")
    @classmethod
    def _url_is_plain(cls, url: str) -> str:
        parts = urlsplit(url)
        if url and (parts.scheme not in ("http", "https") or not parts.hostname):
            raise ValueError("must be an address like https://models.example.com/v1")
        if parts.username is not None or parts.password is not None or parts.query:
            raise ValueError("must have no user, password or query; the key is llm_api_key")
        return url

    def require_model(self) -> None:
        """Raises ConfigurationError unless a model and its key are set."""
        if not self.llm_model:
            raise ConfigurationError(
                "BACKTEST_LLM_MODEL: no language model is set, which the strategist llm asks; set "
                "it to PROVIDER:MODEL, such as anthropic:claude-opus-5, or plan by `rules`"
            )
        if self.llm_api_key is None:
            raise ConfigurationError(
                "BACKTEST_LLM_API_KEY: the provider's key is not set; set it (for a server without "
                "keys to any word)"
            )
