"""How code server, webserver and daemon are: each is asked, or looked for, as its users would.

Imported by a command that a container runs every minute: so Dagster is not imported here, which
takes a second or two, and of the rest each question what it needs alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from backtest_pipeline.market.errors import InvalidInput, StoreError

if TYPE_CHECKING:
    import grpc
    import httpx2

    from backtest_pipeline.storage.postgres.database import Database

HEARTBEAT_S = 120.0  # the daemon writes one every 30 s
_RESPONSE_S = 10.0
_SERVICE = "DagsterApi"  # by which Dagster's code server reports its health
# Dagster's own verdicts, `loadStatus` and `healthy`, still praise a dead process minutes later.
_QUERY = """{
  workspaceOrError { ... on Workspace { locationEntries { locationOrLoadError {
    __typename ... on PythonError { message } } } } }
  instance { daemonHealth { allDaemonStatuses { daemonType required lastHeartbeatTime } } }
}"""


class CodeAddress(NamedTuple):
    """Where a code server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def on_this_machine(self) -> CodeAddress:
        """The address by which a server that listens here is reached from here."""
        local = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
        return self._replace(host=local.get(self.host, self.host))

    @classmethod
    def parse(cls, text: str) -> CodeAddress:
        """The address in a text such as `code-location:4000` or `[::1]:4000`.

        Raises:
            InvalidInput: for anything else.
        """
        host, _, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            host = ""
        if not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65_536:
            raise InvalidInput(f"a code server is named as HOST:PORT, not as {text!r}")
        return cls(host, int(port))


def code_server_problem(address: CodeAddress) -> str | None:
    """What is wrong with a code server; None if it answers, which it does once it has loaded."""
    import grpc
    from grpc_health.v1 import health_pb2

    request = health_pb2.HealthCheckRequest(service=_SERVICE)
    with grpc.insecure_channel(str(address)) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            response = check(request, timeout=_RESPONSE_S)
        except grpc.RpcError as error:
            return f"it does not respond at {address} ({_status(error)})"
    if response.status != health_pb2.HealthCheckResponse.SERVING:
        return f"it says that it does not serve at {address}"
    return None


def _status(error: grpc.RpcError) -> str:
    import grpc

    return error.code().name if isinstance(error, grpc.Call) else type(error).__name__


def ask_webserver(url: str, token: str) -> Mapping[str, Any] | None:
    """What the webserver knows of code location and daemon; None where its store is out of reach.

    Raises:
        httpx2.HTTPError: where it does not respond.
    """
    import httpx2

    bearer = {"Authorization": f"Bearer {token}"}
    with httpx2.Client(trust_env=False, timeout=_RESPONSE_S, headers=bearer) as client:
        response = client.post(f"{url}/graphql", json={"query": _QUERY})
    if response.status_code != httpx2.codes.OK:
        return None
    return response.json().get("data") or {}


def location_problem(known: Mapping[str, Any]) -> str | None:
    """What is wrong with the code location as the webserver knows it; None if it can be used."""
    entries = (known.get("workspaceOrError") or {}).get("locationEntries") or ()
    for entry in entries:
        location = entry["locationOrLoadError"] or {}
        if location.get("__typename") == "PythonError":
            return f"the code location could not be loaded: {location['message']}"
        if location.get("__typename") != "RepositoryLocation":
            return "the code location is being loaded"
    return None if entries else "it knows no code location"


def webserver_problem(url: str, token: str) -> str | None:
    """What is wrong with a webserver; None if it responds and has the code location loaded."""
    import httpx2

    try:
        known = ask_webserver(url, token)
    except httpx2.HTTPError as error:
        return silence(error)
    if known is None:
        return "it refuses the token of this home, or its store is out of reach"
    return location_problem(known)


def silence(error: httpx2.HTTPError) -> str:
    """What is wrong with a webserver that did not respond."""
    return f"it does not respond ({type(error).__name__})"


def daemon_problem(database: Database) -> str | None:
    """What is wrong with the daemon of a store; None if each part of it gave a sign of life."""
    from backtest_pipeline.storage.dagster_heartbeats import heartbeat_ages

    try:
        with database.begin() as connection:
            ages = heartbeat_ages(connection)
    except StoreError as error:
        return f"its signs of life cannot be read: {error}"
    if not ages:
        return "no daemon has run on this store yet"
    kind, age = max(ages.items(), key=lambda item: item[1])
    return None if age <= HEARTBEAT_S else f"{kind} gave no sign of life for {age:.0f} s"
