"""Building heads: from a `HeadConfig` and facts about the base to an `nn.Module` from feature map to feature map for every head.

Blocks of all families keep the initialisation of timm's block classes (PyTorch's, independent of the width, and the gMLP's open gate), so heads differ
in architecture, not in a model's recipe.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from headsearch.errors import HeadError, PluginError
from headsearch.heads.canonical import canonical, head_id
from headsearch.heads.config import HeadConfig, Stage
from headsearch.heads.family import BlockSpec
from headsearch.heads.registry import FAMILIES, family, validate_stage

if TYPE_CHECKING:
    from headsearch.base.info import BaseInfo


def build_head(config: HeadConfig, base: BaseInfo) -> Head:
    """The network that `config` describes, for a base's feature map. Weights are drawn from torch's global generator:
    the same canonical form after the same `torch.manual_seed` has the same weights.

    Raises `HeadError` where the description is wrong, the base cannot carry the head, or it is a set: see `build_heads`.
    """
    head = canonical(config, base)
    if head.members:
        raise HeadError(f"{head_id(head)} is a set of {len(head.members)} heads; expected a single one")
    return Head(head, base.width, base.grid)


def build_heads(config: HeadConfig, base: BaseInfo) -> list[Head]:
    """The networks that a candidate brings to a base: a single head, every member of a set, in canonical order, or none.

    Weights and errors as for `build_head`, the same for any order in which a set was written.
    """
    return [Head(head, base.width, base.grid) for head in canonical(config, base).heads]


def check_guests(families: Iterable[str], base: BaseInfo) -> None:
    """Send a map through a block of each of these families that plug-ins have brought. torch's generators are left as they were.

    Raises:
        PluginError: a block raises something, or does not keep the map's shape.
    """
    map_BCHW = torch.zeros(2, base.width, *base.grid)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for name in sorted(FAMILIES.guests.intersection(families)):
            try:
                seen_BCHW = build_head(HeadConfig((validate_stage(name, {"depth": 1}),)), base)(map_BCHW)
            except HeadError:
                # With its defaults the base cannot carry it; with others it may.
                continue
            except Exception as error:
                # What runs here is not ours, and may raise anything.
                raise PluginError(
                    f"family '{name}': a block for maps of {base.width} channels on {base.grid[0]}x{base.grid[1]} positions raises "
                    f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
                ) from error
            if seen_BCHW.shape != map_BCHW.shape:
                raise PluginError(
                    f"family '{name}': from a map of shape {tuple(map_BCHW.shape)} a block makes {tuple(seen_BCHW.shape)}; expected the same shape"
                )


class Head(nn.Module):
    """An auxiliary head: a map of the base's width in, a map of the same shape out. Without stages it is the identity."""

    def __init__(self, config: HeadConfig, width: int, grid: tuple[int, int]) -> None:
        """`config` is canonical for the base; `width` in channels, `grid` in positions (height, width)."""
        super().__init__()
        self.config = config
        self.width = width
        self.grid = grid
        self.grid_bound = any(family(stage.family).grid_bound for stage in config)
        self.stages = nn.ModuleList(_HeadStage(stage, width, grid) for stage in config)
        self.norm = nn.LayerNorm(width)

    def forward(self, map_BCHW: Tensor) -> Tensor:
        """The head's map. Raises `HeadError` for a map of another width, or of another grid where the head is tied to one."""
        self._check(map_BCHW)
        if not self.stages:
            return map_BCHW
        # With channels last in memory BHWC and BNC are views: this is the only copy, however often the layout changes.
        x = map_BCHW.contiguous(memory_format=torch.channels_last)
        for stage in self.stages:
            x = stage(x)
        return x

    def embed(self, map_BCHW: Tensor) -> Tensor:
        """The embedding of the head's own map: LayerNorm of the mean over positions, BC."""
        embedding: Tensor = self.norm(map_BCHW.mean(dim=(2, 3)))
        return embedding

    def _check(self, map_BCHW: Tensor) -> None:
        channels, height, width = map_BCHW.shape[1:]
        if channels != self.width:
            raise HeadError(
                f"head {head_id(self.config)} has width {self.width}: the map has {channels} channels"
            )
        if self.grid_bound and (height, width) != self.grid:
            raise HeadError(
                f"head {head_id(self.config)} is tied to a grid of {self.grid[0]}x{self.grid[1]} positions: the map has "
                f"{height}x{width} (use images of one size, or a family that takes any grid)"
            )


@dataclass(frozen=True)
class Block:
    """One block of a head: all that its weights follow from, beside the generator."""

    stage: Stage
    """Its family and parameters."""
    index: int
    """Its position in its stage."""
    shortcut: bool
    """Whether it keeps its residual."""

    def build(self, width: int, grid: tuple[int, int]) -> nn.Module:
        """The block for maps of so many channels and positions (height, width), in the layout of its family."""
        spec = BlockSpec(
            width=width, grid=grid, index=self.index, shortcut=self.shortcut, params=self.stage.params
        )
        return family(self.stage.family).block(spec)

    def run(self, built: nn.Module, x_BCHW: Tensor) -> Tensor:
        """What it makes of a map, BCHW."""
        return _in_layout(family(self.stage.family).layout, built, x_BCHW)


def untrained_blocks(config: HeadConfig) -> Iterator[Block]:
    """The blocks of a single head in canonical form, in the order in which they are built and run, without drop path.

    Whatever does not concern the block itself is the same for all, so heads that begin alike have equal blocks, whatever their depth.
    """
    for stage in config:
        depth, first_shortcut = stage.params["depth"], stage.params["first_shortcut"]
        alike = Stage(stage.family, {**stage.params, "depth": 1, "first_shortcut": True, "drop_path": 0.0})
        for index in range(depth):
            yield Block(alike, index, first_shortcut or index > 0)


class _HeadStage(nn.Module):
    """The blocks of one stage, in the memory layout they work in. BCHW to BCHW."""

    def __init__(self, stage: Stage, width: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.layout = family(stage.family).layout
        depth, first_shortcut = stage.params["depth"], stage.params["first_shortcut"]
        self.blocks = nn.Sequential(
            *(Block(stage, index, first_shortcut or index > 0).build(width, grid) for index in range(depth))
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return _in_layout(self.layout, self.blocks, x_BCHW)


def _in_layout(layout: Literal["BCHW", "BHWC", "BNC"], module: nn.Module, x_BCHW: Tensor) -> Tensor:
    if layout == "BCHW":
        x: Tensor = module(x_BCHW)
    elif layout == "BHWC":
        x = module(x_BCHW.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    else:
        x = module(x_BCHW.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, x_BCHW.shape[2:])
    return x
