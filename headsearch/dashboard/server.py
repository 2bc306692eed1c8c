"""Serves the dashboard: one process, a few threads, until Ctrl-C. An idle connection costs a descriptor for some seconds, and no thread."""

from __future__ import annotations

import logging
import os
import re
import resource
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from headsearch.dashboard.guard import Guard, is_loopback, make_token
from headsearch.errors import RunError

if TYPE_CHECKING:
    from waitress.server import BaseWSGIServer

THREADS = 8
IDLE_SECONDS = 10
"""After which a connection that says nothing is closed."""
CONNECTIONS = 500
"""Open at once; more wait to be accepted."""
HEADER_BYTES = 2**15


@dataclass(frozen=True)
class Address:
    """Where the dashboard is found."""

    host: str
    port: int
    token: str | None
    prefix: str = "/"

    @property
    def url(self) -> str:
        """To be opened in a browser; with the token where one is needed."""
        name = socket.gethostname() if self.host in ("0.0.0.0", "::") else self.host
        name = f"[{name}]" if ":" in name else name
        return f"http://{name}:{self.port}{self.prefix}" + (
            f"?token={quote(self.token, safe='')}" if self.token else ""
        )


def open_server(
    paths: list[Path],
    *,
    host: str,
    port: int,
    token: str | None,
    prefix: str = "/",
    refresh: float | None = None,
) -> tuple[BaseWSGIServer, Address]:
    """A server that listens and is not yet served (`run`, which takes Ctrl-C for a wish to return, and `close` at the end), and where it is found.

    Args:
        paths: run directories.
        host: an address of this machine. Other than loopback, a token is needed.
        port: 0 for any that is free.
        token: what every request must bring; None makes one where one is needed.
        prefix: what all addresses begin with, where a proxy has the dashboard below a path of its own.
        refresh: seconds between two looks for changes; None for the usual.

    Raises:
        RunError: no such run, or an address that cannot be listened on.
    """
    if token == "":
        raise RunError("--token is empty; expected one that nobody guesses, or none to have one made")
    if re.fullmatch(r"(/[\w.~-]+)*/?", prefix) is None:
        raise RunError(f"--prefix {prefix}: not a path; expected e.g. /headsearch/")
    prefix = f"{prefix.rstrip('/')}/"
    if token is None and not is_loopback(host):
        token = make_token()
    listener = _listen(host, port)
    try:
        from waitress.server import BaseWSGIServer, create_server

        from headsearch.dashboard.app import REFRESH_SECONDS, Runs, make_app
        from headsearch.dashboard.requests import BODY_BYTES

        app = make_app(Runs(paths), refresh=REFRESH_SECONDS if refresh is None else refresh, prefix=prefix)
        address = Address(host, int(listener.getsockname()[1]), token, prefix)
        guard = Guard(app.server, token, f"headsearch_{address.port}", tuple(app.csp_hashes()))
        # What it says of a queue that has grown is nothing that a reader could mend.
        logging.getLogger("waitress").setLevel(logging.ERROR)
        server = create_server(
            guard,
            sockets=[listener],
            ident="headsearch",
            threads=THREADS,
            # Half of the descriptors, and the rest for the files of the runs.
            connection_limit=min(CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2),
            channel_timeout=IDLE_SECONDS,
            cleanup_interval=IDLE_SECONDS // 2,
            max_request_body_size=BODY_BYTES,
            max_request_header_size=HEADER_BYTES,
            asyncore_use_poll=True,
        )
    except BaseException:
        listener.close()
        raise
    assert isinstance(server, BaseWSGIServer), "one socket"
    return server, address


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=64)
    except socket.gaierror as error:
        raise RunError(f"--host {host}: not an address of this machine: {error.strerror or error}") from None
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise RunError(f"{host}, port {port}: cannot be listened on: {why}; choose another --port") from None
