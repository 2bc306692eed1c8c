"""What the ranks of one training do together. In a single process everything here is a no-op, bit for bit.

A rank is one process of several that train the same weights on their own part of each batch. Gathering with a gradient is lightly's
(`lightly.utils.dist`); this adds what training needs beyond it. Whoever starts a training starts the process group.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
import torch.distributed
from lightly.utils.dist import gather as _gather
from lightly.utils.dist import rank, world_size
from torch import Tensor, nn

__all__ = ["average_gradients", "gather", "rank", "sum_over_ranks", "world_size"]

_BUCKET_BYTES = 32 * 1024**2
"""Gradients are sent in pieces of this size: large enough for the network, small enough to copy."""


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
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its mean over ranks. The same parameters must have one on all ranks."""
    if world_size() == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    sent = []
    for bucket in _buckets(gradients):
        flat = torch.cat([gradient.flatten() for gradient in bucket])
        sent.append((bucket, flat, torch.distributed.all_reduce(flat, async_op=True)))
    for bucket, flat, work in sent:
        work.wait()
        pieces = (flat / world_size()).split([gradient.numel() for gradient in bucket])
        torch._foreach_copy_(
            bucket, [piece.view(gradient.shape) for piece, gradient in zip(pieces, bucket, strict=True)]
        )


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """The tensors in order, in lists of about `_BUCKET_BYTES`."""
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        bucket.append(tensor)
        size += tensor.nbytes
        if size >= _BUCKET_BYTES:
            yield bucket
            bucket, size = [], 0
    if bucket:
        yield bucket
