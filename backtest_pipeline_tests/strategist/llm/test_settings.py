from __future__ import annotations

import pytest

from backtest_pipeline.market.errors import ConfigurationError
from backtest_pipeline.storage.settings import PREFIX, Settings, read_settings, unread_variables
from backtest_pipeline.strategist.llm.settings import LlmSettings


def test_settings_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert LlmSettings.model_config.get("env_prefix") == PREFIX
    monkeypatch.setenv("BACKTEST_LLM_MODEL", "openai-chat:local/llama:70b")
    monkeypatch.setenv("BACKTEST_LLM_API_KEY", "sk-very-secret")
    monkeypatch.setenv("BACKTEST_LLM_MAX_CALLS", "2")
    found = read_settings(LlmSettings)
    assert (found.llm_model, found.llm_max_calls) == ("openai-chat:local/llama:70b", 2)
    assert "very-secret" not in f"{found!r} {found} {found.model_dump()} {found.model_dump_json()}"
    assert unread_variables(Settings, LlmSettings) == []


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("LLM_MODEL", "gpt-5.6", "BACKTEST_LLM_MODEL: must be PROVIDER:MODEL with one of"),
        ("LLM_MODEL", "nobody:gpt", "BACKTEST_LLM_MODEL: must be PROVIDER:MODEL"),
        ("LLM_BASE_URL", "ftp://host", "BACKTEST_LLM_BASE_URL: must be an address like https"),
        ("LLM_BASE_URL", "https://me:word@host", "must have no user, password or query"),
        ("LLM_MAX_CALLS", "0", "BACKTEST_LLM_MAX_CALLS"),
        ("LLM_DEADLINE_S", "0", "BACKTEST_LLM_DEADLINE_S"),
        ("LLM_USD_PER_DAY", "-1", "BACKTEST_LLM_USD_PER_DAY"),
    ],
)
def test_a_setting_that_cannot_be_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, reason: str
) -> None:
    monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(ConfigurationError, match=reason) as caught:
        read_settings(LlmSettings)
    assert "word" not in str(caught.value).replace("password", "")


def test_without_a_model_or_a_key_there_is_nobody_to_ask() -> None:
    with pytest.raises(ConfigurationError, match="BACKTEST_LLM_MODEL: no language model is set"):
        LlmSettings().require_model()
    with pytest.raises(ConfigurationError, match="BACKTEST_LLM_API_KEY: the provider's key"):
        LlmSettings(llm_model="openai:gpt-5.6").require_model()
