"""A plug-in of headsearch: a family of heads, a method and a measure of our own.

    headsearch run --data ~/images --plugin gated_heads.py --set search.space=gated_space.yaml
    headsearch run --data ~/images --plugin gated_heads.py --set method.name=cosine

Copy this file and keep what you need. Torch is imported inside the functions only, so that spaces and experiments are checked without it.
"""

from __future__ import annotations

from functools import cache

from headsearch.heads import COMMON_PARAMETERS, BlockSpec, Family, Parameter
from headsearch.methods import MethodEntry, MethodOptions, MethodRecipe
from headsearch.scoring.discrepancy import Measure


def gated_block(spec: BlockSpec):
    """One block: every channel is gated by its neighbourhood. A module from a map of `spec.width` channels to a map of the same shape."""
    from torch import nn

    kernel = spec["kernel_size"]

    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.GroupNorm(1, spec.width)
            self.gate = nn.Conv2d(spec.width, spec.width, kernel, padding=kernel // 2, groups=spec.width)
            self.mix = nn.Conv2d(spec.width, spec.width, 1)

        def forward(self, x_BCHW):
            normal = self.norm(x_BCHW)
            change = self.mix(normal * self.gate(normal).sigmoid())
            return x_BCHW + change if spec.shortcut else change

    return Gated()


class CosineOptions(MethodOptions):
    """What `method.kwargs` may hold."""

    size: int = 64
    """Features that are compared."""


@cache
def define_cosine():
    """The module of the method: a projector, and the loss between student and teacher."""
    from torch import nn
    from torch.nn.functional import cosine_similarity

    from headsearch.methods.method import Method

    class Cosine(Method):
        def __init__(self, width, options):
            super().__init__()
            self.size = options.size

        def projector(self, in_dim):
            return nn.Sequential(nn.Linear(in_dim, self.size), nn.BatchNorm1d(self.size))

        def predictor(self):
            return nn.Linear(self.size, self.size)

        def loss(self, student_BD, target_BD):
            return 1 - cosine_similarity(student_BD.float(), target_BD.float()).mean()

    return Cosine


def rank_distance(x_ND, y_NE):
    """1 - the correlation of distances between samples: 0 for representations that are the same up to rotation and scale."""
    import torch

    # Pairs of a thousand samples are half a million.
    pairs = torch.stack([torch.pdist(side[:1000].double()) for side in (x_ND, y_NE)])
    return max(1 - torch.corrcoef(pairs)[0, 1].item(), 0.0)


PLUGINS = [
    Family(
        name="gated",
        doc="Every channel gated by its neighbourhood.",
        parameters=(
            *COMMON_PARAMETERS,
            Parameter("kernel_size", "int", 3, "side of the gate's kernel", choices=(3, 5, 7), slug="k"),
        ),
        layout="BCHW",
        block=gated_block,
    ),
    MethodEntry(
        "cosine",
        CosineOptions,
        MethodRecipe(
            learning_rate=1.5e-4,
            weight_decay=0.1,
            weight_decay_end=0.1,
            teacher_momentum=0.99,
            clip_gradient=3.0,
        ),
        define_cosine,
    ),
    Measure("distances", rank_distance),
]
