"""What a head costs: learnable numbers and FLOPs, counted on the meta device, where nothing is computed and no memory is held.

Blocks are counted one by one and remembered, so that thousands of heads put together from the same blocks take seconds.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from headsearch.base_info import BaseInfo
from headsearch.heads.canonical import canonical
from headsearch.heads.config import HeadConfig, Stage
from headsearch.heads.family import BlockSpec
from headsearch.heads.registry import family
from headsearch.trial import HeadCost


def head_cost(config: HeadConfig, base: BaseInfo) -> HeadCost:
    """Learnable numbers of the head, its embedding's LayerNorm included, and FLOPs of one forward pass of one image.

    FLOPs are those of matrix products, convolutions and attention, a multiply-add counted as two, by torch's counter; norms and
    activations are not counted. The empty head costs nothing. `overhead` is left None: it has to be measured.

    Raises:
        HeadError: the base cannot carry the head.
    """
    stages = canonical(config, base).stages
    if not stages:
        return HeadCost(params=0, flops=0)
    blocks = [
        _block_cost(stage, index, base.width, base.grid)
        for stage in stages
        for index in range(int(stage.params["depth"] or 0))
    ]
    norm_params = 2 * base.width
    return HeadCost(
        params=norm_params + sum(params for params, _ in blocks), flops=sum(flops for _, flops in blocks)
    )


@lru_cache(maxsize=4096)
def _block_cost(stage: Stage, index: int, width: int, grid: tuple[int, int]) -> tuple[int, int]:
    """(params, flops) of one block."""
    kind = family(stage.family)
    shortcut = index > 0 or bool(stage.params["first_shortcut"])
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
