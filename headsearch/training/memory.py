"""Whether a training fits into memory: estimated before anything is trained, on the meta device, where nothing is computed.

Counted are weights, gradients and optimiser state of the student, the teacher's weights, and what the backward pass keeps of one step.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from headsearch.base.model import Base
from headsearch.errors import ExperimentError
from headsearch.heads.build import build_head
from headsearch.heads.candidate import Candidate
from headsearch.methods.hssl import Branch
from headsearch.methods.method import Method

_STUDENT_COPIES = 4
"""Of every weight: itself, its gradient, and two moments of AdamW."""
_RESERVE = 0.9
"""Of the free memory, how much may be planned with: kernels and fragments take some."""


def check_joint_memory(
    base: Base,
    heads: Sequence[Candidate],
    method: Method,
    *,
    heads_per_step: int,
    batch_size: int,
    free: int,
) -> float:
    """The bytes that a joint run needs, about; one that would not fit is refused.

    Args:
        base: the base, on the meta device.
        heads: the heads of the run, or others like them.
        method: gives the projectors.
        heads_per_step: how many of them take part in a step.
        batch_size: images of a step, of which each gives two views.
        free: bytes that may be used.

    Raises:
        ExperimentError: says what is needed, what is there, and how many heads would fit.
    """
    weights, base_kept, per_head, head_kept = _bytes(base, heads, method)
    fixed = weights + 2 * batch_size * base_kept
    active = heads_per_step * 2 * batch_size * head_kept
    needed = fixed + len(heads) * per_head + active
    allowed = _RESERVE * free
    if needed <= allowed:
        return needed
    fitting = int((allowed - fixed - active) / per_head)
    advice = (
        f"about {fitting} heads would fit (search.screen.batch)"
        if fitting >= 2
        else "expected a smaller proxy.batch_size or search.screen.heads_per_step"
    )
    raise ExperimentError(
        f"search.screen: {len(heads)} heads on one base, {heads_per_step} in each step, need about {_shown(needed)} of memory, and "
        f"{_shown(free)} are free; {advice}"
    )


def check_step_memory(
    base: Base,
    heads: Sequence[Candidate],
    method: Method,
    *,
    images: int,
    halved: bool,
    free: int,
) -> None:
    """Refuse a training whose step does not fit into memory, counted low: what is refused cannot be trained.

    Args:
        base: the base, on the meta device.
        heads: all heads of the step.
        method: gives the projectors.
        images: trained on at once, each in two views.
        halved: what the backward pass keeps is in bfloat16.
        free: bytes that may be used.

    Raises:
        ExperimentError: says what is needed, what is there, and what to change.
    """
    weights, base_kept, per_head, head_kept = _bytes(base, heads, method)
    kept = 2 * images * (base_kept + len(heads) * head_kept)
    needed = weights + len(heads) * per_head + (kept / 2 if halved else kept)
    if needed > free:
        raise ExperimentError(
            f"recipe.batch_size: {images:,} images at once with {' and '.join(head.head_id for head in heads)} need about {_shown(needed)} of memory, "
            f"and {_shown(free)} are free; expected a smaller recipe.batch_size, more parts in recipe.accumulate, or a smaller head"
        )


def free_memory(device: torch.device) -> int:
    """Bytes that can be had now on `device`."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") + _cached()


def _cached() -> int:
    """Bytes that Linux keeps of files and would give back."""
    try:
        with Path("/proc/meminfo").open(encoding="ascii") as file:
            found = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in file}
    except OSError:
        return 0
    return max(0, found.get("MemAvailable", 0) - found.get("MemFree", 0))


def _bytes(base: Base, heads: Sequence[Candidate], method: Method) -> tuple[float, float, float, float]:
    """What the base's weights need, and what the backward pass keeps of it for a view; for a head on average what its weights and projectors need,
    and what is kept of it for a view."""
    info = base.info
    method.prepare(info)
    with torch.device("meta"):
        embedding_dim = info.width if method.compares_tokens else info.embedding_dim
        pair = [Branch(method.projector(dim), method.predictor()) for dim in (embedding_dim, info.width)]
        branches = sum(map(_size, pair))
        built = [build_head(head.config, info) for head in heads]
        projector = _size(method.projector(info.width))
        base_kept = _kept(base, torch.empty(2, info.channels, info.image_size, info.image_size)) / 2
        base_kept *= method.least_seen
        maps = torch.empty(2, info.width, *info.grid)
        head_kept = [_kept(head, maps) / 2 for head in built]
        tokens = torch.empty(2, info.grid[0] * info.grid[1], info.width)
        decoded = sum(_kept(branch, tokens) / 2 for branch in pair) if method.leaves_out else 0.0
    per_head = sum(map(_size, built)) / len(built) * (_STUDENT_COPIES + 1)
    per_head += _STUDENT_COPIES * branches + projector
    return (_STUDENT_COPIES + 1) * _size(base), base_kept, per_head, sum(head_kept) / len(built) + decoded


def _size(module: nn.Module) -> float:
    """Bytes of the weights."""
    return float(sum(weight.numel() * weight.element_size() for weight in module.parameters()))


def _kept(module: nn.Module, x: Tensor) -> float:
    """Bytes that the backward pass of `module(x)` keeps, weights left out."""
    weights = {weight.untyped_storage()._cdata for weight in module.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Any:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        module(x)
    return float(sum(kept.values()))


def _shown(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"
