"""Database servers, started once for all tests of a session that want one, and stopped at its end."""

from collections.abc import Iterator

import pytest

from headsearch.testing.servers import GrpcProxy, MariaServer, PostgresServer, ServerMissing, server_folder


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresServer]:
    with server_folder() as folder:
        try:
            server = PostgresServer(folder)
        except ServerMissing as missing:
            pytest.skip(str(missing))
        try:
            yield server
        finally:
            server.stop("immediate")


@pytest.fixture(scope="session")
def mysql() -> Iterator[MariaServer]:
    with server_folder() as folder:
        try:
            server = MariaServer(folder)
        except ServerMissing as missing:
            pytest.skip(str(missing))
        try:
            yield server
        finally:
            server.stop("immediate")


@pytest.fixture(scope="session")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GrpcProxy]:
    server = GrpcProxy(f"sqlite:///{tmp_path_factory.mktemp('proxied')}/studies.db")
    try:
        yield server
    finally:
        server.stop()
