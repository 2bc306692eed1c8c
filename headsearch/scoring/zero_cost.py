"""A head at random initialisation, without training: how different from its base, and how good.

The base runs once (`run_base`), and every head runs on the feature maps that it left (`UntrainedHeads`). In: a base and images, then heads.
Out: numbers by name. `headsearch.search.zero_cost` does this for an experiment, over several seeds; docs/zero_cost.md says what the numbers are worth.
"""

from __future__ import annotations

import contextlib
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from headsearch.base.info import BaseInfo
from headsearch.base.model import Base
from headsearch.errors import InfeasibleHead
from headsearch.heads.build import Block, untrained_blocks
from headsearch.heads.canonical import canonical
from headsearch.heads.config import HeadConfig
from headsearch.heads.registry import FAMILIES
from headsearch.scoring.collapse import rankme, worthless_reason
from headsearch.scoring.discrepancy import CkaSide, cka_of_sides, cka_side
from headsearch.scoring.features import embed_change, evaluating, on_device
from headsearch.scoring.quality import view_retrieval

_Module = TypeVar("_Module", bound=nn.Module)

_BATCH_SIZE = 128
"""Most images in a batch, which is what batch norms normalise over."""
_KEPT_BYTES = 2**31
"""Of maps that heads had made, on the base's device, for heads that begin alike."""
_MOST_AT_ONCE = 6
"""Maps of one head: those of two batches of plain images, and of two views of each."""
_EMBEDDING_EPS = 1e-5
"""Of a head's embedding, as in `heads.build.Head`."""


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

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """Every map that a head is run on: of the plain images, of the first and of the second views."""
        return (*self.maps, *self.views[0], *self.views[1])


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


class _Passed(NamedTuple):
    """What the first blocks of a head have made."""

    maps: tuple[Tensor, ...]
    generator: Tensor
    """The state of torch's global generator after they were built."""


class UntrainedHeads:
    """Heads at initialisation, run on what bases left: block by block, and what heads begin with in common once.

    From the same seed, heads that begin with the same blocks have the same weights there, and the same maps. Those last used are kept, up to
    2 GiB: heads of one kind and other depths, and stacks with the same first slots, cost one block each, if they come one after the other.
    """

    def __init__(self, info: BaseInfo, bases: Sequence[tuple[BaseOutputs, int]]) -> None:
        """`bases` are what a base has left, and the seed of the heads there."""
        self._info = info
        self._bases = bases
        self._passed: OrderedDict[tuple[int, tuple[Block, ...]], _Passed] = OrderedDict()
        self._kept = 0

    def run(self, config: HeadConfig, place: int, threads: Executor | None = None) -> tuple[Tensor, ...]:
        """The head's maps for the `inputs` of one of the bases, without dropped paths and without gradients; with `threads` several maps at once.

        Batch norms normalise by the batch, as in training: their running statistics know nothing yet. Moves torch's global generator.

        Raises:
            HeadError: the base cannot carry the head.
        """
        blocks = tuple(untrained_blocks(canonical(config, self._info)))
        base, seed = self._bases[place]
        begun = len(blocks)
        while begun and (place, blocks[:begun]) not in self._passed:
            begun -= 1
        if begun:
            passed = self._passed[place, blocks[:begun]]
            self._passed.move_to_end((place, blocks[:begun]))
        else:
            passed = _Passed(base.inputs, torch.Generator().manual_seed(seed).get_state())
        for end in range(begun + 1, len(blocks) + 1):
            torch.set_rng_state(passed.generator)
            block = blocks[end - 1]
            built = untrained(block.build(self._info.width, self._info.grid), passed.maps[0].device)
            generator = torch.get_rng_state()
            # A block of a plug-in may keep something from one pass for the next.
            each = map if threads is None or block.stage.family in FAMILIES.guests else threads.map
            passed = _Passed(tuple(each(partial(_run, block, built), passed.maps)), generator)
            self._keep((place, blocks[:end]), passed)
        return passed.maps

    def _keep(self, key: tuple[int, tuple[Block, ...]], passed: _Passed) -> None:
        self._passed[key] = passed
        self._kept += _size(passed)
        while self._kept > _KEPT_BYTES:
            _, forgotten = self._passed.popitem(last=False)
            self._kept -= _size(forgotten)


# For every thread by itself, as torch has it.
@torch.no_grad()
def _run(block: Block, built: nn.Module, x_BCHW: Tensor) -> Tensor:
    return block.run(built, x_BCHW)


@contextlib.contextmanager
def side_by_side(device: torch.device) -> Iterator[Executor | None]:
    """Threads for a head's maps, among which torch's own are divided within; None where there is one thread, or an accelerator.

    Untrained heads are small: threads that share one operation spend longer waiting for each other than they save.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        yield None
        return
    workers = min(threads, _MOST_AT_ONCE)
    torch.set_num_threads(threads // workers)
    try:
        with ThreadPoolExecutor(workers) as pool:
            yield pool
    finally:
        torch.set_num_threads(threads)


def _size(passed: _Passed) -> int:
    return sum(x.numel() * x.element_size() for x in passed.maps)


def untrained(module: _Module, device: torch.device) -> _Module:
    """The module in eval mode, but for batch norms, which normalise by the batch."""
    module.to(device).eval()
    for part in module.modules():
        if isinstance(part, _BatchNorm):
            part.train()
    return module


def measure_head(outputs: Sequence[Tensor], base: BaseOutputs) -> dict[str, float]:
    """What one initialisation of a head is worth, by the names of `zero_cost_scores.MEASURED`; undefined ones are left out.

    Args:
        outputs: The head's maps for `base.inputs`, in that order.
        base: What the base has left.

    Raises:
        InfeasibleHead: its features are not finite, or its embeddings collapsed.
    """
    batches = len(base.maps)
    plain = outputs[:batches]
    changes = [output - x for output, x in zip(plain, base.maps, strict=True)]
    embeddings = [_embed(output) for output in outputs]
    embedding_ND, first, second = (
        torch.cat(embeddings[start : start + batches]) for start in range(0, 3 * batches, batches)
    )
    change_embedding_ND = torch.cat([embed_change(change) for change in changes])
    reason = worthless_reason("head", embedding_ND)
    if reason is not None:
        raise InfeasibleHead(reason)
    sides = {
        "cka.embedding.output": (base.embedding, embedding_ND),
        "cka.embedding.change": (base.embedding, change_embedding_ND),
        "cka.tokens.output": (base.tokens, _tokens(plain, base.positions)),
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


def _embed(map_BCHW: Tensor) -> Tensor:
    """The embedding of a head's map, as `Head.embed` before any training."""
    return nn.functional.layer_norm(map_BCHW.mean(dim=(2, 3)), map_BCHW.shape[1:2], eps=_EMBEDDING_EPS)


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
