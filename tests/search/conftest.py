"""A Ray cluster, started once for all tests of a session that want one, and stopped at its end."""

from collections.abc import Iterator

import pytest

from headsearch.experiment import RaySpec
from headsearch.search.executors.ray_cluster import connected


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """A Ray cluster of this machine, which takes longer to start than most tests run."""
    with connected(RaySpec()):
        yield
