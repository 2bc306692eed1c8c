"""What training asks of the system."""

from __future__ import annotations

import platform
import resource

import pytest
import torch

from headsearch.training.devices import keep_freed_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_memory_that_was_freed_is_not_cleared_again() -> None:
    pages = 16_384

    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.zeros(pages * 4096, dtype=torch.uint8).fill_(1)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    keep_freed_memory()
    assert min(faults() for _ in range(4)) < pages // 10
