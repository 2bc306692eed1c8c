"""A head at random initialisation, without training: how different from its base, and how good.

The base runs once (`run_base`), and every head runs on the feature maps that it left. In: a base and images, then heads. Out: numbers by
name. `headsearch.search.zero_cost` does this for an experiment, over several seeds; docs/zero_cost.md says what the numbers are worth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from headsearch.base.model import Base
from headsearch.errors import InfeasibleHead
from headsearch.heads.build import Head
from headsearch.scoring.collapse import rankme, worthless_reason
from headsearch.scoring.discrepancy import CkaSide, cka_of_sides, cka_side
from headsearch.scoring.features import embed_change, evaluating, on_device
from headsearch.scoring.quality import view_retrieval

_BATCH_SIZE = 128
"""Most images in a batch, which is what batch norms normalise over."""


@dataclass(frozen=True)
class BaseOutputs:
    """What one base makes of some images, kept for all heads: their plain pixels and two augmented views. Maps are on the base's device."""

    maps: tuple[Tensor, ...]
    """Feature maps of the plain images, BCHW, batch by batch."""
    views: tuple[tuple[Tensor, ...], tuple[Tensor, ...]]
    """Those of the first and of the second views."""
    positions: tuple[Tensor, ...]
    """Positions of each batch of maps that are sampled as tokens, counted over images, rows and columns."""
    embedding: CkaSide | None
    """The base's embeddings of the plain images; None where they are all alike."""
    tokens: CkaSide | None
    """The maps at the sampled positions."""
    reason: str | None
    """Why the base's embeddings are worthless; None where they are not."""


def run_base(
    base: Base,
    images: Tensor,
    *,
    prepare: Callable[[Tensor], Tensor],
    views: Callable[[Tensor], Sequence[Tensor]],
    max_tokens: int,
    seed: int,
) -> BaseOutputs:
    """Run the base on plain images and on their views, in eval mode.

    Args:
        base: The base; its device is where the maps stay.
        images: (N, 3, S, S) as `prepare` and `views` take them; at least 4.
        prepare: Turns a batch, on the base's device, into the base's input.
        views: Turns a batch into two views of it, of which there may be more.
        max_tokens: Positions kept over all images, drawn uniformly without replacement by `seed`.
    """
    batches = images.tensor_split(-(-len(images) // _BATCH_SIZE))
    maps: list[Tensor] = []
    embeddings: list[Tensor] = []
    view_maps: tuple[list[Tensor], list[Tensor]] = ([], [])
    with evaluating(base):
        for batch in on_device(batches, base):
            output = base(prepare(batch))
            maps.append(_channels_last(output.map))
            embeddings.append(output.embedding)
            for kept, view in zip(view_maps, views(batch), strict=False):
                kept.append(_channels_last(base(view).map))
    positions = _sample(maps, max_tokens, seed)
    embedding_ND = torch.cat(embeddings)
    return BaseOutputs(
        maps=tuple(maps),
        views=(tuple(view_maps[0]), tuple(view_maps[1])),
        positions=positions,
        embedding=cka_side(embedding_ND),
        tokens=cka_side(_tokens(maps, positions)),
        reason=worthless_reason("base", embedding_ND),
    )


def measure_head(head: Head, base: BaseOutputs) -> dict[str, float]:
    """What one initialisation of a head is worth, by the names of `zero_cost_scores.MEASURED`; undefined ones are left out.

    The head is run without dropped paths and without gradients, but its batch norms normalise by the batch, as in training: their running
    statistics know nothing yet. The head goes to the device that the maps are on.

    Raises:
        InfeasibleHead: its features are not finite, or its embeddings collapsed.
        HeadError: the maps do not fit the head.
    """
    head.to(base.maps[0].device).eval()
    for module in head.modules():
        if isinstance(module, _BatchNorm):
            module.train()
    with torch.no_grad():
        outputs: list[Tensor] = [head(map_BCHW) for map_BCHW in base.maps]
        changes = [output - x for output, x in zip(outputs, base.maps, strict=True)]
        embedding_ND = torch.cat([head.embed(output) for output in outputs])
        change_embedding_ND = torch.cat([embed_change(change) for change in changes])
        first, second = (torch.cat([head.embed(head(x_BCHW)) for x_BCHW in view]) for view in base.views)
    reason = worthless_reason("head", embedding_ND)
    if reason is not None:
        raise InfeasibleHead(reason)
    sides = {
        "cka.embedding.output": (base.embedding, embedding_ND),
        "cka.embedding.change": (base.embedding, change_embedding_ND),
        "cka.tokens.output": (base.tokens, _tokens(outputs, base.positions)),
        "cka.tokens.change": (base.tokens, _tokens(changes, base.positions)),
    }
    if not all(torch.isfinite(x).all() for x in (first, second, *(x for _, x in sides.values()))):
        raise InfeasibleHead("the head's features are not finite")
    values: dict[str, float | None] = {}
    for name, (base_side, x_ND) in sides.items():
        cka = cka_of_sides(base_side, cka_side(x_ND))
        values[name] = None if math.isnan(cka) else max(0.0, 1.0 - cka)
    values["retrieval.head"] = view_retrieval(first, second)
    values["rankme_head"] = rankme(embedding_ND)
    return {name: value for name, value in values.items() if value is not None}


def _sample(maps: Sequence[Tensor], size: int, seed: int) -> tuple[Tensor, ...]:
    """Positions of each batch, drawn over all."""
    counts = [len(x) * x.shape[2] * x.shape[3] for x in maps]
    total = sum(counts)
    drawn = np.sort(np.random.default_rng(seed).permutation(total)[:size])
    starts = np.cumsum([0, *counts])
    return tuple(
        torch.from_numpy(drawn[(start <= drawn) & (drawn < end)] - start).to(x.device)
        for start, end, x in zip(starts[:-1], starts[1:], maps, strict=True)
    )


def _tokens(maps: Iterable[Tensor], positions: Iterable[Tensor]) -> Tensor:
    """Maps at the sampled positions, (M, C)."""
    return torch.cat(
        [x.permute(0, 2, 3, 1).flatten(0, 2)[chosen] for x, chosen in zip(maps, positions, strict=True)]
    )


def _channels_last(map_BCHW: Tensor) -> Tensor:
    """As heads work: they would copy it otherwise, at every pass."""
    return map_BCHW.float().contiguous(memory_format=torch.channels_last)
