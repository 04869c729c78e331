"""An address that cannot be used is named before anything is started."""

from __future__ import annotations

import socket

import pytest

from backtest_pipeline.market.errors import AddressInUse, ConfigurationError
from backtest_pipeline.service.listening import listen


def test_an_address_is_taken_from_then_on() -> None:
    with listen("localhost", 0) as first:
        host, port = first.getsockname()
        assert host == "127.0.0.1"
        with pytest.raises(AddressInUse, match=f"127.0.0.1:{port} is in use by another process"):
            listen("127.0.0.1", port)
        with socket.create_connection((host, port), timeout=30):
            pass  # it waits until a server accepts it


@pytest.mark.parametrize("host", ["203.0.113.1", "no-such-host.invalid"])
def test_an_address_of_another_machine_is_refused(host: str) -> None:
    with pytest.raises(ConfigurationError, match=f"cannot listen at {host}:0: "):
        listen(host, 0)
