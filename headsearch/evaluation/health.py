"""Whether the training behind some weights is healthy, from images without labels: a row of measures and a sentence for each weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from headsearch.errors import BaseModelError
from headsearch.evaluation.spec import EvaluationSpec
from headsearch.evaluation.subject import Subject
from headsearch.scoring.collapse import rankme, worthless_reason
from headsearch.scoring.dense import dse
from headsearch.scoring.features import extract_embeddings, extract_tokens
from headsearch.scoring.label_free import alpha_req, lidar, twonn, verdict_of_health, wasserstein_uniformity
from headsearch.scoring.quality import alignment, uniformity, view_retrieval
from headsearch.training.seeds import derived_generator

MOST_IMAGES = 1_000
"""How many held-out images are used; of a larger set, a fixed random part. Values are comparable for the same number of images only."""


MOST_DENSE = 64
"""How many of them are used for measures of single positions."""


@dataclass(frozen=True)
class Health:
    """What the label-free measures say of some weights, by name; unknown is None."""

    weights: str
    measures: dict[str, float | None] = field(default_factory=dict)
    """`rankme`, `alpha_req`, `lidar`, `alignment`, `uniformity`, `wasserstein`, `retrieval` (percent), `twonn` and `dse`."""
    verdict: str = ""
    """A sentence that begins with `healthy`, `collapsing` or `collapsed`."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def check_health(subject: Subject, spec: EvaluationSpec, before: Sequence[Health]) -> Health:
    """Measure some weights. `before` are the weights measured before them, such as earlier checkpoints of the same training.

    Raises `BaseModelError` where there are fewer than two held-out images.
    """
    images = list(subject.some_held_out(MOST_IMAGES, derived_generator(spec.seed, "label-free images")))
    x_ND = extract_embeddings(subject.base, images, prepare=subject.views.prepare)
    if len(x_ND) < 2:
        raise BaseModelError(f"weights '{subject.name}': label-free needs two held-out images or more")
    reason = worthless_reason("base", x_ND)
    if not torch.isfinite(x_ND).all():
        return Health(subject.name, {}, verdict_of_health(math.nan, reason, None))
    pairs = [
        subject.two_views(images, derived_generator(spec.seed, "label-free views", seed))
        for seed in range(spec.seeds)
    ]
    views = torch.stack([view for pair in pairs for view in pair])
    first, second = pairs[0]
    rank = rankme(x_ND)
    tokens = extract_tokens(subject.base, images, prepare=subject.views.prepare, most=MOST_DENSE)
    values = {
        "rankme": rank,
        "alpha_req": alpha_req(x_ND),
        "lidar": lidar(views),
        "alignment": alignment(first, second),
        "uniformity": uniformity(x_ND),
        "wasserstein": wasserstein_uniformity(x_ND),
        "retrieval": sum(view_retrieval(*pair) for pair in pairs) / len(pairs),
        "twonn": twonn(x_ND),
        "dse": dse(tokens, seed=spec.seed),
    }
    ranks = [each.measures["rankme"] for each in before if each.measures.get("rankme") is not None]
    highest = max((value for value in ranks if value is not None), default=None)
    known = {name: None if math.isnan(value) else value for name, value in values.items()}
    return Health(subject.name, known, verdict_of_health(rank, reason, highest))
