"""Sockets of servers, opened before anything else is started."""

from __future__ import annotations

import errno
import socket

from backtest_pipeline.market.errors import AddressInUse, ConfigurationError


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at an address; who connects waits until a server accepts it.

    Args:
        host: name or address of this machine.
        port: port; 0 for any free one.

    Raises:
        AddressInUse: where another process listens there.
        ConfigurationError: for an address of another machine, or a port that is not allowed.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, _, _, _, address = min(found, key=lambda info: info[0] != socket.AF_INET)
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise AddressInUse(
                f"{host}:{port} is in use by another process; end that one, or choose another port "
                "with --port"
            ) from error
        raise ConfigurationError(
            f"cannot listen at {host}:{port}: {error.strerror}; choose another --host or --port"
        ) from error
