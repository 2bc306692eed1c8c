"""A Ray cluster and a SLURM cluster, each started once for all tests of a file that want one, and stopped at its end.

Not at the end of the session: idle, Ray's processes take 1.7 s of the processor a minute.
"""

from collections.abc import Iterator

import pytest

from headsearch.experiment import RaySpec
from headsearch.search.executors.ray_cluster import connected
from tests.fixtures.database_servers import ServerMissing
from tests.fixtures.slurm_cluster import slurm_cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A Ray cluster of this machine, which takes longer to start than most tests run."""
    with connected(RaySpec()):
        yield


@pytest.fixture(scope="module")
def slurm() -> Iterator[None]:
    """A SLURM cluster of this machine."""
    try:
        cluster = slurm_cluster()
        cluster.__enter__()
    except ServerMissing as missing:
        pytest.skip(str(missing))
    yield
    cluster.__exit__(None, None, None)
