"""Database servers, started once for all tests of a session that want one, and stopped at its end."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from database_servers import GrpcProxy, MariaServer, PostgresServer, ServerMissing, server_folder

Server = TypeVar("Server", PostgresServer, MariaServer)


@contextlib.contextmanager
def serving(make: Callable[[Path], Server]) -> Iterator[Server]:
    with server_folder() as folder:
        try:
            server = make(folder)
        except ServerMissing as missing:
            pytest.skip(str(missing))
        try:
            yield server
        finally:
            server.stop("immediate")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresServer]:
    with serving(PostgresServer) as server:
        yield server


@pytest.fixture(scope="session")
def mysql() -> Iterator[MariaServer]:
    with serving(MariaServer) as server:
        yield server


@pytest.fixture(scope="session")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GrpcProxy]:
    server = GrpcProxy(f"sqlite:///{tmp_path_factory.mktemp('proxied')}/studies.db")
    try:
        yield server
    finally:
        server.stop()
