"""The ranks of a pretraining: who they are, where each trains, and what they must agree on.

torchrun (or a scheduler that sets the same variables) starts one process per rank: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and
MASTER_PORT in the environment. Tensors on accelerators travel by NCCL; what is decided on the host travels by gloo, so that no
decision waits for an accelerator.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from timm.layers.norm_act import convert_sync_batchnorm
from torch import nn

from headsearch.errors import ExperimentError, UserError
from headsearch.methods.collectives import rank, world_size
from headsearch.pretrain.batch_norm import synchronised_on_cpu
from headsearch.training.devices import resolve_device

_PATIENCE = timedelta(hours=2)
"""How long ranks wait for the first one, which alone probes and writes."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class Place:
    """Where this process stands among the ranks."""

    device: torch.device
    local_ranks: int
    """Processes on this machine, which share its cores."""

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes files and talks."""
        return bool(rank() == 0)


@contextmanager
def ranks(device: str) -> Iterator[Place]:
    """Join the other ranks, where there are any, for as long as the context lasts.

    Raises:
        ExperimentError: the device is not here, or has one number for several ranks.
    """
    several = "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1
    chosen = resolve_device(device)
    if not several:
        yield Place(chosen, 1)
        return
    if chosen.type == "cuda":
        if chosen.index is not None:
            raise ExperimentError(
                f"recipe.device: '{device}' is one accelerator for several ranks; expected auto or cuda"
            )
        chosen = resolve_device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
        torch.cuda.set_device(chosen)
    backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=_PATIENCE)
    try:
        yield Place(chosen, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    finally:
        dist.destroy_process_group()


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
    dist.broadcast_object_list(told, src=0, device=torch.device("cpu"))
    if told[1] is not None:
        raise told[1]
    result: _T = told[0]
    return result


def agreed(number: int) -> int:
    """The largest of all ranks' numbers. Does not wait for accelerators."""
    if world_size() == 1:
        return number
    largest = torch.tensor(number)
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return int(largest)


def bytes_of_first(content: bytes | None) -> bytes | None:
    """The first rank's bytes, for all; None where it has none."""
    if world_size() == 1:
        return content
    size = agreed(-1 if content is None else len(content))
    if size < 0:
        return None
    # Not a pickled object, which would hold a checkpoint in memory several times over.
    buffer = (
        torch.frombuffer(bytearray(content), dtype=torch.uint8)
        if content
        else torch.empty(size, dtype=torch.uint8)
    )
    dist.broadcast(buffer, src=0)
    return buffer.numpy().tobytes()


def synchronise_batch_norms(module: nn.Module, device: torch.device) -> None:
    """Have the batch norms below `module` normalise by the batch of all ranks. Names and state stay as they are."""
    if world_size() == 1:
        return
    convert: Callable[[nn.Module], nn.Module] = (
        convert_sync_batchnorm if device.type == "cuda" else synchronised_on_cpu
    )
    for name, child in list(module.named_children()):
        module.add_module(name, convert(child))
