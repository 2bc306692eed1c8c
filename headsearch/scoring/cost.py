"""What a head costs: learnable numbers and FLOPs, counted on the meta device, where nothing is computed and no memory is held.

Blocks are counted one by one and remembered, so that thousands of heads put together from the same blocks take seconds.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from headsearch.base.info import BaseInfo
from headsearch.heads.build import Block, untrained_blocks
from headsearch.heads.canonical import canonical
from headsearch.heads.config import HeadConfig
from headsearch.heads.cost import HeadCost


def head_cost(config: HeadConfig, base: BaseInfo) -> HeadCost:
    """Learnable numbers of the head, its embedding's LayerNorm included, and FLOPs of one forward pass of one image.

    FLOPs are those of matrix products, convolutions and attention, a multiply-add counted as two, by torch's counter; norms and
    activations are not counted. A set costs what its members cost together, the empty head nothing. `overhead` is left None: it has
    to be measured.

    Raises:
        HeadError: the base cannot carry the head.
    """
    heads = canonical(config, base).heads
    blocks = [_block_cost(block, base.width, base.grid) for head in heads for block in untrained_blocks(head)]
    norm_params = 2 * base.width * len(heads)
    return HeadCost(
        params=norm_params + sum(params for params, _ in blocks), flops=sum(flops for _, flops in blocks)
    )


@lru_cache(maxsize=4096)
def _block_cost(block: Block, width: int, grid: tuple[int, int]) -> tuple[int, int]:
    """(params, flops) of one block."""
    with torch.device("meta"):
        built = block.build(width, grid)
        x_BCHW = torch.empty(1, width, *grid).contiguous(memory_format=torch.channels_last)
    params = sum(weight.numel() for weight in built.parameters())
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        block.run(built.eval(), x_BCHW)
    return params, int(counter.get_total_flops())
