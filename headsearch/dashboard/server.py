"""Serves the dashboard: one process, several threads, until Ctrl-C."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from headsearch.dashboard.guard import Guard, is_loopback, make_token
from headsearch.errors import RunError

if TYPE_CHECKING:
    from werkzeug.serving import BaseWSGIServer


@dataclass(frozen=True)
class Address:
    """Where the dashboard is found."""

    host: str
    port: int
    token: str | None

    @property
    def url(self) -> str:
        """To be opened in a browser; with the token where one is needed."""
        name = socket.gethostname() if self.host in ("0.0.0.0", "::") else self.host
        name = f"[{name}]" if ":" in name else name
        return f"http://{name}:{self.port}/" + (f"?token={quote(self.token, safe='')}" if self.token else "")


def open_server(
    paths: list[Path], *, host: str, port: int, token: str | None, refresh: float | None = None
) -> tuple[BaseWSGIServer, Address]:
    """A server that listens and is not yet served, and where it is found.

    Args:
        paths: run directories.
        host: an address of this machine. Other than loopback, a token is needed.
        port: 0 for any that is free.
        token: what every request must bring; None makes one where one is needed.
        refresh: seconds between two looks for changes; None for the usual.

    Raises:
        RunError: no such run, or an address that cannot be listened on.
    """
    if token == "":
        raise RunError("--token is empty; expected one that nobody guesses, or none to have one made")
    if token is None and not is_loopback(host):
        token = make_token()
    listener = _listen(host, port)
    try:
        from werkzeug.serving import WSGIRequestHandler, make_server

        from headsearch.dashboard.app import REFRESH_SECONDS, make_app
        from headsearch.dashboard.runs import Runs

        class Quiet(WSGIRequestHandler):
            """Writes no line for every request, and does not say what it is made of."""

            server_version, sys_version = "headsearch", ""

            def log_request(self, *_: object, **__: object) -> None:
                return None

        app = make_app(Runs(paths), refresh=REFRESH_SECONDS if refresh is None else refresh)
        address = Address(host, int(listener.getsockname()[1]), token)
        guard = Guard(app.server, token, f"headsearch_{address.port}", tuple(app.csp_hashes()))
        server = make_server(
            host, address.port, guard, threaded=True, request_handler=Quiet, fd=listener.fileno()
        )
    except BaseException:
        listener.close()
        raise
    # The server holds a descriptor of its own.
    listener.close()
    return server, address


def serve(
    paths: list[Path], *, host: str, port: int, token: str | None, announce: Callable[[Address], None]
) -> None:
    """Serve until Ctrl-C. `announce` is told where, once it listens. Raises as `open_server`."""
    server, address = open_server(paths, host=host, port=port, token=token)
    announce(address)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
    finally:
        server.server_close()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise RunError(f"--host {host}: not an address of this machine: {error.strerror or error}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(64)
    except OSError as error:
        listener.close()
        raise RunError(
            f"{host}, port {port}: cannot be listened on: {error.strerror or error}; choose another --port"
        ) from None
    return listener
