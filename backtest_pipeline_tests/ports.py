"""Ports for servers that have to be told one."""

from __future__ import annotations

import os
import random
import socket

_BELOW_OUTGOING = range(20_000, 32_000)


def free_port() -> int:
    """A port of this machine that nobody has.

    It is none of those that the system gives to connections (from 32768 on), so that no connection
    takes it before the server does.
    """
    (port,) = free_ports(1)
    return port


def free_ports(n: int) -> list[int]:
    """Different ports, as of `free_port`; asked for one by one, they would be the same."""
    found = []
    for port in random.Random(os.getpid()).sample(_BELOW_OUTGOING, 1_000):  # noqa: S311
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
        if len(found) == n:
            return found
    raise AssertionError(f"a thousand ports, and {len(found)} are free")
