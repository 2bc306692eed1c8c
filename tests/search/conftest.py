"""A Ray cluster and a SLURM cluster, each started once for all tests of a session that want one, and stopped at its end."""

from collections.abc import Iterator

import pytest

from headsearch.experiment import RaySpec
from headsearch.search.executors.ray_cluster import connected
from tests.fixtures.database_servers import ServerMissing
from tests.fixtures.slurm_cluster import slurm_cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """A Ray cluster of this machine, which takes longer to start than most tests run."""
    with connected(RaySpec()):
        yield


@pytest.fixture(scope="session")
def slurm() -> Iterator[None]:
    """A SLURM cluster of this machine."""
    try:
        cluster = slurm_cluster()
        cluster.__enter__()
    except ServerMissing as missing:
        pytest.skip(str(missing))
    yield
    cluster.__exit__(None, None, None)
