"""The Dagster UI behind its guard, as a process of its own on a socket that it is given.

The only module that uses private parts of Dagster's webserver, because no public API wraps its app:

- `WorkspaceProcessContext` and `WorkspaceFileTarget`, which open the workspace;
- `create_app_from_workspace_process_context` of `dagster_webserver.app`.

For the reasons, and when this can be removed, see docs/adr/0001-private-dagster.md.
"""

from __future__ import annotations

import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import uvicorn
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from pydantic import TypeAdapter

from backtest_pipeline.defs.processes.daemon import ignore_unreachable_locations
from backtest_pipeline.defs.processes.guard import Guard

_GRACE_S = 3


@dataclass(frozen=True)
class Webserver:
    """The arguments of the process.

    Attributes:
        socket: file descriptor of a listening socket.
        workspace: the file `workspace.yaml`.
        token: file with the token that browsers have to show.
        names: host names that the UI is reached by, besides loopback's.
        by_any_address: whether it is reached by any IP address.
    """

    socket: int
    workspace: Path
    token: Path
    names: tuple[str, ...]
    by_any_address: bool

    def command(self) -> tuple[str, ...]:
        """The command line of the process, which has to be passed the socket."""
        return (sys.executable, "-m", __name__, TypeAdapter(Webserver).dump_json(self).decode())

    def serve(self) -> None:
        """Serve until SIGTERM."""
        # Here, because `up` starts this process without loading the UI's server itself.
        from dagster_webserver.app import create_app_from_workspace_process_context

        with (
            dg.DagsterInstance.get() as instance,
            WorkspaceProcessContext(
                instance, WorkspaceFileTarget([str(self.workspace)])
            ) as context,
        ):
            guarded = Guard(
                create_app_from_workspace_process_context(context),
                self.token.read_text(),
                self.names,
                by_any_address=self.by_any_address,
            )
            config = uvicorn.Config(
                guarded,
                log_level="warning",
                access_log=False,  # addresses have the token
                server_header=False,
                timeout_graceful_shutdown=_GRACE_S,
            )
            uvicorn.Server(config).run([socket.socket(fileno=self.socket)])


if __name__ == "__main__":
    ignore_unreachable_locations()
    TypeAdapter(Webserver).validate_json(sys.argv[1]).serve()
