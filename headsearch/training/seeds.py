"""Random numbers of a trial: every use has its own stream, named, so that no use shifts another's.

All randomness of a step follows from the trial's seed and the step's number. A resumed run therefore needs no generator states,
and two heads with the same seed see the same base, the same batches and the same views.
"""

from __future__ import annotations

import hashlib

import torch


def derived_seed(seed: int, *names: str | int) -> int:
    """A seed for one named use, 63 bits, unrelated to those of other names or other seeds."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1


def derived_generator(seed: int, *names: str | int) -> torch.Generator:
    """A CPU generator for one named use."""
    return torch.Generator().manual_seed(derived_seed(seed, *names))
