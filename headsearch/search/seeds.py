"""Seeds that depend on what is trained and on nothing else: not on the executor, not on the order of trials."""

from __future__ import annotations

import hashlib
import json

from headsearch.heads.config import Scalar


def derived_seed(*parts: Scalar) -> int:
    """A seed of 63 bits from any sequence of scalars; the same on every machine and in every process.

    >>> derived_seed("study", 1) == derived_seed("study", 1) != derived_seed("study", "1")
    True
    """
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def trial_seed(study_seed: int, head_id: str, replicate: int) -> int:
    """The seed of one training, 63 bits. A control and a searched head of the same `head_id` share it, and so their scores."""
    return derived_seed("trial", study_seed, head_id, replicate)
