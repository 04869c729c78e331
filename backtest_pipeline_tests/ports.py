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
    for port in random.Random(os.getpid()).sample(_BELOW_OUTGOING, 1_000):  # noqa: S311
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("a thousand ports, and none is free")
