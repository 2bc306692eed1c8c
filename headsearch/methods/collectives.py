"""What the ranks of one training do together. In a single process everything here is a no-op, bit for bit.

A rank is one process of several that train the same weights on their own part of each batch. Gathering with a gradient is lightly's
(`lightly.utils.dist`); this adds what training needs beyond it. Whoever starts a training starts the process group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
import torch.distributed
from lightly.utils.dist import gather as _gather
from lightly.utils.dist import rank, world_size
from torch import Tensor, nn

from headsearch.errors import UserError

__all__ = [
    "agreed",
    "average_gradients",
    "bytes_of_first",
    "gather",
    "mean_over_ranks",
    "on_first",
    "rank",
    "sum_over_ranks",
    "world_size",
]

_T = TypeVar("_T")


def gather(x_BD: Tensor) -> Tensor:
    """The rows of all ranks, in the order of ranks. The gradient of every rank's loss reaches the rank that the rows came from."""
    return torch.cat(_gather(x_BD)) if world_size() > 1 else x_BD


@torch.no_grad()
def sum_over_ranks(x: Tensor) -> Tensor:
    """The sum over ranks of a tensor; no gradient."""
    if world_size() == 1:
        return x
    total = x.clone()
    torch.distributed.all_reduce(total)
    return total


@torch.no_grad()
def mean_over_ranks(x: Tensor) -> Tensor:
    """The mean over ranks of a tensor; no gradient."""
    mean: Tensor = sum_over_ranks(x) / world_size()
    return mean


def on_first(work: Callable[[], _T]) -> _T:
    """What `work` returns on the first rank, for all of them; they wait for it. A `UserError` there is raised everywhere.

    What is returned must be small and plain: it is pickled.
    """
    if world_size() == 1:
        return work()
    told: list[Any] = [None, None]
    if rank() == 0:
        try:
            told[0] = work()
        except UserError as error:
            told[1] = error
    torch.distributed.broadcast_object_list(told, src=0, device=torch.device("cpu"))
    if told[1] is not None:
        raise told[1]
    result: _T = told[0]
    return result


def agreed(number: int) -> int:
    """The largest of all ranks' numbers. Does not wait for accelerators."""
    if world_size() == 1:
        return number
    largest = torch.tensor(number)
    torch.distributed.all_reduce(largest, op=torch.distributed.ReduceOp.MAX)
    return int(largest)


def bytes_of_first(content: bytes) -> bytes:
    """The first rank's bytes, for all; those of the others are not looked at. There are several ranks."""
    size = agreed(len(content))
    # Not a pickled object, which would hold a checkpoint in memory several times over.
    buffer = (
        torch.frombuffer(bytearray(content), dtype=torch.uint8)
        if rank() == 0
        else torch.empty(size, dtype=torch.uint8)
    )
    torch.distributed.broadcast(buffer, src=0)
    return buffer.numpy().tobytes()


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its mean over ranks, all of them in one message. The same parameters must have one on all ranks."""
    if world_size() == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    torch.distributed.all_reduce(flat)
    pieces = (flat / world_size()).split([gradient.numel() for gradient in gradients])
    torch._foreach_copy_(
        gradients, [piece.view(gradient.shape) for piece, gradient in zip(pieces, gradients, strict=True)]
    )
