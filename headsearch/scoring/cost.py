"""What a head costs: learnable numbers and FLOPs, counted on the meta device, where nothing is computed and no memory is held.

Blocks are counted one by one and remembered, so that thousands of heads put together from the same blocks take seconds.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from headsearch.base.info import BaseInfo
from headsearch.heads.canonical import canonical
from headsearch.heads.config import HeadConfig, Stage
from headsearch.heads.cost import HeadCost
from headsearch.heads.family import BlockSpec
from headsearch.heads.registry import family


def head_cost(config: HeadConfig, base: BaseInfo) -> HeadCost:
    """Learnable numbers of the head, its embedding's LayerNorm included, and FLOPs of one forward pass of one image.

    FLOPs are those of matrix products, convolutions and attention, a multiply-add counted as two, by torch's counter; norms and
    activations are not counted. A set costs what its members cost together, the empty head nothing. `overhead` is left None: it has
    to be measured.

    Raises:
        HeadError: the base cannot carry the head.
    """
    heads = canonical(config, base).heads
    blocks = [cost for head in heads for stage in head for cost in _stage_costs(stage, base)]
    norm_params = 2 * base.width * len(heads)
    return HeadCost(
        params=norm_params + sum(params for params, _ in blocks), flops=sum(flops for _, flops in blocks)
    )


def _stage_costs(stage: Stage, base: BaseInfo) -> list[tuple[int, int]]:
    """(params, flops) of each block."""
    depth, first_shortcut = stage.params["depth"], stage.params["first_shortcut"]
    # What a block cannot know is the same for all in the key, so that stages of any depth share their blocks.
    block = Stage(stage.family, {**stage.params, "depth": 1, "first_shortcut": True, "drop_path": 0.0})
    return [
        _block_cost(block, index, first_shortcut or index > 0, base.width, base.grid)
        for index in range(depth)
    ]


@lru_cache(maxsize=4096)
def _block_cost(
    stage: Stage, index: int, shortcut: bool, width: int, grid: tuple[int, int]
) -> tuple[int, int]:
    """(params, flops) of one block."""
    kind = family(stage.family)
    with torch.device("meta"):
        block = kind.block(
            BlockSpec(width=width, grid=grid, index=index, shortcut=shortcut, params=stage.params)
        )
        shape = {
            "BCHW": (1, width, *grid),
            "BHWC": (1, *grid, width),
            "BNC": (1, grid[0] * grid[1], width),
        }[kind.layout]
        x = torch.empty(shape)
    return sum(weight.numel() for weight in block.parameters()), _flops(block.eval(), x)


def _flops(block: nn.Module, x: torch.Tensor) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        block(x)
    return int(counter.get_total_flops())
