import pytest

from headsearch.search.proposer import SAMPLERS
from headsearch.testing.samplers import SAMPLER_CHECKS, SamplerCheck


@pytest.mark.parametrize("check", SAMPLER_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_sampler(sampler: str, check: SamplerCheck) -> None:
    check(sampler)
