"""The ranks of a training: who they are, where each trains, which rows of a batch are its own, and how they normalise.

Whoever starts them (torchrun, or a scheduler that sets the same variables) starts one process per rank: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and
MASTER_PORT in the environment. Tensors on accelerators travel by NCCL; what is decided on the host travels by gloo, so that no
decision waits for an accelerator.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from timm.layers.norm_act import convert_sync_batchnorm
from torch import nn

from headsearch.errors import ExperimentError, RankLost
from headsearch.methods.collectives import rank, world_size
from headsearch.training.devices import resolve_device

_PATIENCE = timedelta(hours=2)
"""How long ranks wait for the first one, which alone probes and writes."""


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
        RankLost: in place of what torch raises over a connection to another rank.
    """
    several = "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1
    chosen = resolve_device(device, "recipe.device")
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
    except RuntimeError as error:
        if is_of_a_connection(error):
            raise RankLost from error
        raise
    finally:
        dist.destroy_process_group()


def is_of_a_connection(error: Exception) -> bool:
    """Whether an error is torch's, about a connection to another rank."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def own_rows(batch_size: int, parts: int = 1) -> list[slice]:
    """Which rows of a batch are this rank's: of each of `parts` equal parts, an equal share."""
    part = batch_size // parts
    share = part // world_size()
    starts = (index * part + rank() * share for index in range(parts))
    return [slice(start, start + share) for start in starts]


def synchronise_batch_norms(module: nn.Module, device: torch.device) -> None:
    """Have the batch norms below `module` normalise by the batch of all ranks. Names and state stay as they are.

    On CPUs each rank goes on normalising by its own part: torch has nothing better there.
    """
    if world_size() == 1 or device.type != "cuda":
        return
    for name, child in list(module.named_children()):
        module.add_module(name, convert_sync_batchnorm(child))  # type: ignore[no-untyped-call]
