"""The seeds that a search gives out. They depend on what is trained and on nothing else: not on the executor, not on the order of trials.

What follows from such a seed within a training has a derivation of its own, `headsearch.training.seeds`. Either could serve for both,
but studies hold the seeds of this one, and every score follows from the other (docs/decisions/071-two-derivations-of-seeds.md).
"""

from __future__ import annotations

import hashlib
import json

from headsearch.heads.config import Scalar
from headsearch.training.trial import TrialStage


def search_seed(*parts: Scalar) -> int:
    """A seed of 63 bits from any sequence of scalars; the same on every machine and in every process.

    >>> search_seed("study", 1) == search_seed("study", 1) != search_seed("study", "1")
    True
    """
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def trial_seed(study_seed: int, head_id: str, replicate: int, stage: TrialStage = "proxy") -> int:
    """The seed of one training, 63 bits. A control and a searched head of the same `head_id` share it, and so their scores."""
    return search_seed("trial" if stage == "proxy" else stage, study_seed, head_id, replicate)
