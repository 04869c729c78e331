"""A TCP proxy in front of a server's unix socket, that breaks connections when it is told to."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict, make_conninfo

_CHUNK = 1 << 16
_RESET = struct.pack("ii", 1, 0)  # linger for 0 s: closing sends RST


@dataclass
class Proxy:
    """Forwards to a unix socket. Each way of breaking happens once; then it forwards again.

    Attributes:
        server: path of the socket.
        carried: bytes forwarded so far, in both directions together.
        commits: COMMITs that clients have sent so far.
        cut_at_byte: reset all connections when so many bytes have been forwarded.
        cut_at_commit: reset the connection of the COMMIT of this number (1 is the first) ...
        commit_is_done: ... after the server has done it and before the client hears of that, or
            before the server hears of it.
        silent: swallow everything both sides say; what is sent is still acknowledged.
        pause_s: wait so long before each piece is forwarded.
        is_gone: break off each new connection.
    """

    server: Path
    carried: int = 0
    commits: int = 0
    cut_at_byte: int | None = None
    cut_at_commit: int | None = None
    commit_is_done: bool = True
    silent: bool = False
    pause_s: float = 0.0
    is_gone: bool = False
    port: int = 0
    _pairs: list[tuple[socket.socket, socket.socket]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _committing: socket.socket | None = None
    _committed: threading.Event = field(default_factory=threading.Event)

    def dsn(self, conninfo: str) -> str:
        """A connection string through the proxy, in the place of one to its server."""
        words = {name: word for name, word in conninfo_to_dict(conninfo).items() if word}
        return make_conninfo("", **words | {"host": "127.0.0.1", "port": self.port})

    def cut(self) -> None:
        """Reset all connections."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                with suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads it
                end.close()

    def go_for(self, seconds: float) -> None:
        """Be gone for so long, as the server is seen from outside; returns at once."""
        self.is_gone = True
        self.cut()

        def be_back() -> None:
            self.is_gone = False

        threading.Timer(seconds, be_back).start()

    def serve(self, listener: socket.socket) -> None:
        self.port = listener.getsockname()[1]
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return  # closed: the end
            if self.is_gone:
                client.close()
                continue
            upstream = socket.socket(socket.AF_UNIX)
            try:
                upstream.connect(str(self.server))
            except OSError:
                client.close()
                upstream.close()
                continue
            with self._lock:
                self._pairs.append((client, upstream))
            for source, sink in ((client, upstream), (upstream, client)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        from_client = source.family == socket.AF_INET
        with suppress(OSError):
            while data := source.recv(_CHUNK):
                time.sleep(self.pause_s)
                if source is self._committing:
                    self._committed.set()
                if self.silent:
                    continue
                if from_client and b"COMMIT" in data and self._is_the_commit():
                    if self.commit_is_done:
                        self._committing = sink
                        sink.sendall(data)
                        self._committed.wait()
                    self.cut()
                    self.silent = False
                    return
                if self._is_the_byte(len(data)):
                    sink.sendall(data[: len(data) // 2])
                    self.cut()
                    return
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def _is_the_commit(self) -> bool:
        with self._lock:
            self.commits += 1
            if self.commits != self.cut_at_commit:
                return False
            self.silent, self.cut_at_commit = self.commit_is_done, None
            self._committed.clear()
            return True

    def _is_the_byte(self, n: int) -> bool:
        with self._lock:
            self.carried += n
            if self.cut_at_byte is None or self.carried < self.cut_at_byte:
                return False
            self.cut_at_byte = None
            return True


@contextmanager
def proxy_to(conninfo: str) -> Iterator[Proxy]:
    """A proxy to the server of a connection string with a unix socket."""
    words = conninfo_to_dict(conninfo)
    proxy = Proxy(Path(str(words["host"]), f".s.PGSQL.{words.get('port') or 5432}"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy.port = listener.getsockname()[1]
        thread = threading.Thread(target=proxy.serve, args=(listener,), daemon=True)
        thread.start()
        yield proxy
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    proxy.cut()
