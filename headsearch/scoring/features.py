"""Features of held-out images: what the base sees, what the head makes of it, and what the head changed.

In: a base, a head (or none), batches of images. Out: `Features` on the CPU in float32, ready for every measure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from headsearch.base.model import Base
    from headsearch.heads.build import Head

_CHANGE_EPS = 1e-6


@dataclass(frozen=True)
class Features:
    """Features of the same images seen by base and head; the head's are None without a head. All float32 on the CPU."""

    base_embedding: Tensor
    """The base's embedding: its own norm and pooling."""
    head_embedding: Tensor | None
    """The head's embedding: LayerNorm(global average of h(x)), with the head's learned norm."""
    change_embedding: Tensor | None
    """LayerNorm without learned scale of the global average of h(x) - x."""
    base_tokens: Tensor
    """The base's last feature map x at M sampled positions, before its final norm."""
    head_tokens: Tensor | None
    """h(x) at the same positions."""
    change_tokens: Tensor | None
    """h(x) - x at the same positions."""


def extract_features(
    base: Base,
    heads: Sequence[Head],
    batches: Iterable[Tensor],
    *,
    prepare: Callable[[Tensor], Tensor],
    max_tokens: int = 4096,
    seed: int,
) -> list[Features]:
    """Features of all images, in order, with base and heads in eval mode (their modes are restored) and without gradients.

    The base sees every image once, however many heads there are.

    Args:
        base: The base; its device is where the images go.
        heads: The heads; none for a trial without one.
        batches: Images (B, C, H, W) as `prepare` takes them.
        prepare: Turns a batch, on the base's device, into the base's input.
        max_tokens: Positions kept over all images, drawn uniformly without replacement; the draw depends on `seed` and on how many
            positions there are, not on the batch size.
        seed: Of the draw of positions.

    Returns:
        One `Features` per head, which share the base's tensors; without heads a single one.

    Raises:
        ValueError: no batches.
    """
    base_parts: list[Tensor] = []
    head_parts: list[list[Tensor]] = [[] for _ in heads]
    change_parts: list[list[Tensor]] = [[] for _ in heads]
    tokens = _TokenSample(max_tokens, seed)
    with evaluating(base, *heads):
        for images in on_device(batches, base):
            output = base(prepare(images))
            base_parts.append(_kept(output.embedding))
            maps = [output.map]
            for head, outputs, changes in zip(heads, head_parts, change_parts, strict=True):
                head_map = head(output.map)
                change_map = head_map - output.map
                outputs.append(_kept(head.embed(head_map)))
                changes.append(_kept(embed_change(change_map)))
                maps += [head_map, change_map]
            tokens.add(*maps)
    if not base_parts:
        raise ValueError("no images to extract features from")
    base_embedding = torch.cat(base_parts)
    if not heads:
        return [Features(base_embedding, None, None, tokens.maps[0], None, None)]
    return [
        Features(
            base_embedding=base_embedding,
            head_embedding=torch.cat(outputs),
            change_embedding=torch.cat(changes),
            base_tokens=tokens.maps[0],
            head_tokens=tokens.maps[1 + 2 * index],
            change_tokens=tokens.maps[2 + 2 * index],
        )
        for index, (outputs, changes) in enumerate(zip(head_parts, change_parts, strict=True))
    ]


def embed_change(change_BCHW: Tensor) -> Tensor:
    """The embedding (B, C) of a change h(x) - x: LayerNorm without learned scale of the mean over positions."""
    change_BC = change_BCHW.float().mean(dim=(2, 3))
    return nn.functional.layer_norm(change_BC, change_BC.shape[1:], eps=_CHANGE_EPS)


def extract_embeddings(
    base: Base, batches: Iterable[Tensor], *, prepare: Callable[[Tensor], Tensor]
) -> Tensor:
    """Embeddings (N, D) of all images, in order, for the probes; float32 on the CPU. Arguments and modes as in `extract_features`.

    Raises:
        ValueError: no batches.
    """
    with evaluating(base):
        parts = [_kept(base(prepare(images)).embedding) for images in on_device(batches, base)]
    if not parts:
        raise ValueError("no images to extract embeddings from")
    return torch.cat(parts)


def extract_tokens(
    base: Base, images: Iterable[Tensor], *, prepare: Callable[[Tensor], Tensor], most: int
) -> Tensor:
    """The base's last map at all positions (B, N, C) of the first `most` images. Arguments and modes as in `extract_features`."""
    parts: list[Tensor] = []
    with evaluating(base):
        for batch in on_device(images, base):
            left = most - sum(map(len, parts))
            if left <= 0:
                break
            parts.append(_kept(base(prepare(batch[:left])).map.flatten(2).mT))
    return torch.cat(parts)


@dataclass(frozen=True)
class ViewEmbeddings:
    """Embeddings (N, D) of two views of the same images, a pair for each network; float32 on the CPU."""

    base: tuple[Tensor, Tensor]
    heads: tuple[tuple[Tensor, Tensor], ...]


def extract_view_embeddings(
    base: Base,
    heads: Sequence[Head],
    batches: Iterable[Tensor],
    *,
    views: Callable[[Tensor], Sequence[Tensor]],
) -> ViewEmbeddings:
    """Embeddings of two augmented views of all images, in order. Modes as in `extract_features`; the base sees each view once.

    Args:
        base: The base; its device is where the images go.
        heads: The heads; none for a trial without one.
        batches: Images (B, C, H, W) as `views` takes them.
        views: Turns a batch, on the base's device, into the base's input: two views, of which there may be more.

    Raises:
        ValueError: no batches.
    """
    parts: list[tuple[list[Tensor], list[Tensor]]] = [([], []) for _ in (base, *heads)]
    with evaluating(base, *heads):
        for images in on_device(batches, base):
            for number, view in enumerate(views(images)[:2]):
                output = base(view)
                parts[0][number].append(_kept(output.embedding))
                for head, of_head in zip(heads, parts[1:], strict=True):
                    of_head[number].append(_kept(head.embed(head(output.map))))
    if not parts[0][0]:
        raise ValueError("no images to extract embeddings from")
    of_base, *of_heads = ((torch.cat(first), torch.cat(second)) for first, second in parts)
    return ViewEmbeddings(of_base, tuple(of_heads))


class _TokenSample:
    """A uniform sample of feature-map positions out of a stream of unknown length: those with the smallest random keys."""

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        # numpy's stream does not depend on how many numbers are drawn at a time; torch's does.
        self._random = np.random.default_rng(seed)
        self._keys = torch.empty(0, dtype=torch.float64)
        self.maps: tuple[Tensor, ...] = ()
        """The sampled positions of each map so far, (M, C), in the order of the stream."""

    def add(self, *maps_BCHW: Tensor) -> None:
        """Consider every position of these maps; all maps are sampled at the same positions."""
        batch, _, height, width = maps_BCHW[0].shape
        held = len(self._keys)
        keys = torch.cat([self._keys, torch.from_numpy(self._random.random(batch * height * width))])
        kept = keys.argsort()[: self._size].sort().values
        old, new = kept[kept < held], kept[kept >= held] - held
        fresh = tuple(
            _kept(x_BCHW.flatten(2).mT.flatten(0, 1)[new.to(x_BCHW.device)]) for x_BCHW in maps_BCHW
        )
        self.maps = (
            tuple(map(torch.cat, zip((x[old] for x in self.maps), fresh, strict=True))) if held else fresh
        )
        self._keys = keys[kept]


def _kept(x: Tensor) -> Tensor:
    return x.detach().float().cpu()


def on_device(batches: Iterable[Tensor], module: nn.Module) -> Iterator[Tensor]:
    """The batches, each on the device of the module's weights."""
    device = next(module.parameters()).device
    for images in batches:
        yield images.to(device, non_blocking=True)


@contextmanager
def evaluating(*networks: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients inside; afterwards every submodule is in the mode it was in."""
    modes = [(module, module.training) for network in networks for module in network.modules()]
    for module, _ in modes:
        module.training = False
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
