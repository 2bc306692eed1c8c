from pathlib import Path

import pytest

from headsearch.testing.storages import STORAGE_CHECKS, StorageCheck


@pytest.fixture(params=["sqlite", "journal", "postgresql", "mysql", "grpc"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    match request.param:
        case "sqlite":
            return f"sqlite:///{tmp_path}/studies.db"
        case "journal":
            return f"journal:///{tmp_path}/studies.log"
        case "grpc":
            return str(request.getfixturevalue("proxy").url)
        case server:
            return str(request.getfixturevalue(server).url)


@pytest.mark.parametrize("check", STORAGE_CHECKS, ids=lambda check: check.__name__)
def test_storage(url: str, check: StorageCheck, tmp_path: Path) -> None:
    check(url, tmp_path)
