"""Bounds of connections: how long a request may take to arrive, and how many there may be."""

from __future__ import annotations

import asyncio
import resource
from typing import TYPE_CHECKING

from uvicorn.protocols.http.auto import AutoHTTPProtocol

MOST_DESCRIPTORS = 65_536
"""As many as the service asks the system for; beyond, each costs memory and finds no more work."""
MOST_HEADER_BYTES = 65_536
"""Of one request; as much as other servers take."""
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"connection: close\r\ncontent-length: 0\r\n\r\n"
)
_FOR_ITSELF = 256  # files, the store's connections, pipes of the workers

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import H11Protocol as Protocol
else:
    Protocol = AutoHTTPProtocol


def protocol_with(headers_s: float) -> type[asyncio.Protocol]:
    """A protocol class of uvicorn that closes connections with long or late headers.

    Args:
        headers_s: seconds from a connection's start, or from a later request's first byte, until
            the headers are complete.
    """

    class Bounded(Protocol):
        _deadline: asyncio.TimerHandle | None = None
        _header_bytes = 0

        def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
            super().connection_made(transport)
            self._deadline = self.loop.call_later(headers_s, transport.close)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._disarm()
                return
            if self._deadline is None:
                self._deadline = self.loop.call_later(headers_s, self.transport.close)
            self._header_bytes += len(data)
            if self._header_bytes > MOST_HEADER_BYTES and not self.transport.is_closing():
                self.transport.write(_TOO_LARGE)
                self.transport.close()

        def connection_lost(self, exc: Exception | None) -> None:
            self._disarm()
            super().connection_lost(exc)

        def _disarm(self) -> None:
            self._header_bytes = 0
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

    return Bounded


def raise_descriptors() -> int:
    """Raise this process's limit of file descriptors as far as it may, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def most_connections(wanted: int, descriptors: int) -> int:
    """The connections that these file descriptors allow, beside what the service needs itself."""
    return max(1, min(wanted, descriptors - _FOR_ITSELF))
