"""The pairing of heterogeneous self-supervised learning: what base and head make of a view, and which target they meet.

Comes in: features of views, a feature map and an embedding each, from the student's base and from the teacher's. Goes out: the loss

    L = ½ · [ ℓ(b_u, A_v) + ℓ(a_u, A_v) ]    with a head,        L = ℓ(b_u, B_v)    without one,

averaged over all ordered pairs of views u ≠ v of which v is global. b and a are what the student makes of its base and of its head, A and B
what the teacher makes of them, ℓ any loss between a student's output and a target. The head sits on the base's feature map, so the gradient
of ℓ(a_u, A_v) trains the base too; the teacher gets none and follows as an exponential moving average.

This knows no method, no images and no masks: `headsearch.methods.hssl` trains with it, `headsearch.HSSLPair` gives it to other loops.

Li et al., "Enhancing Representations through Heterogeneous Self-Supervised Learning", TPAMI 2025, arXiv 2310.05108.
Shapes: B images, C channels, H × W positions, D features.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Generic, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from headsearch.heads.build import Head

Features = tuple[Tensor, Tensor]
"""What a base makes of images: the feature map that heads work on, BCHW, and its embedding, BD."""

_M = TypeVar("_M", bound=nn.Module)


class ModuleList(nn.ModuleList, Generic[_M]):
    """A list of modules that are all of one type, for the type checker."""

    if TYPE_CHECKING:

        def __getitem__(self, index: int) -> _M: ...  # type: ignore[override]

        def __iter__(self) -> Iterator[_M]: ...


@dataclass(frozen=True)
class Parts:
    """What stands between embeddings and the loss."""

    projector: Callable[[int], nn.Module]
    """Makes a new projector from embeddings of so many features; all of them end in the same size."""
    predictor: Callable[[], nn.Module | None] = lambda: None
    """Makes a new predictor, which only the student has and applies after its projector."""
    shared: str | None = None
    """Name of a submodule of the student's projectors that base and head have in common, e.g. the layer of prototypes."""


class Branch(nn.Module):
    """What stands between an embedding and the loss: a projector and, on the student's side of some methods, a predictor."""

    def __init__(self, projector: nn.Module, predictor: nn.Module | None = None) -> None:
        super().__init__()
        self.projector = projector
        self.predictor = predictor

    def forward(self, embedding_BD: Tensor) -> Tensor:
        """Embeddings to what the loss compares."""
        projection_BD: Tensor = self.projector(embedding_BD)
        if self.predictor is not None:
            projection_BD = self.predictor(projection_BD)
        return projection_BD


class StudentSide(nn.Module):
    """Base and heads. Every head has a projector and predictor of its own, and so has the base for every head."""

    def __init__(
        self, base: nn.Module | None, heads: Sequence[Head], parts: Parts, *, width: int, embedding_dim: int
    ) -> None:
        """`width` counts the channels of the map, `embedding_dim` the features of the base's embedding."""
        super().__init__()
        self.base = base
        self.heads = ModuleList[Head](heads)
        self.base_branches = ModuleList[Branch]()
        self.head_branches = ModuleList[Branch]()
        # The base's first branch is drawn first: with the same random numbers, it starts the same whatever the head is.
        for index in range(max(1, len(heads))):
            self.base_branches.append(Branch(parts.projector(embedding_dim), parts.predictor()))
            if index < len(heads):
                self.head_branches.append(Branch(parts.projector(width), parts.predictor()))
                if parts.shared is not None:
                    of_base, of_head = self.projectors(index)
                    of_head.set_submodule(parts.shared, of_base.get_submodule(parts.shared))

    def project(self, features: Features, active: Sequence[int] = (0,)) -> list[Tensor]:
        """The base's output, then the head's, for each of the `active` heads in turn; without heads the base's alone."""
        map_BCHW, embedding_BD = features
        outputs: list[Tensor] = []
        for index in active:
            outputs.append(self.base_branches[index](embedding_BD))
            if self.heads:
                head = self.heads[index]
                outputs.append(self.head_branches[index](head.embed(head(map_BCHW))))
        return outputs

    def projectors(self, index: int = 0) -> list[nn.Module]:
        """The projectors of one pairing, the base's first."""
        projectors = [self.base_branches[index].projector]
        return [*projectors, self.head_branches[index].projector] if self.heads else projectors


class TeacherSide(nn.Module):
    """The slow copy that gives the targets: each head's with heads, else the base's. It holds what that takes and no more.

    It is in eval mode (no drop path), but its batch norms normalise by the batch, as the student's do: averaged statistics lag
    behind averaged weights. Its buffers are the student's.
    """

    def __init__(
        self,
        student: StudentSide,
        parts: Parts,
        *,
        width: int,
        embedding_dim: int,
        base: nn.Module | None = None,
    ) -> None:
        """`base` is what the teacher has for a base; None: a copy of the student's, if that has one."""
        super().__init__()
        self.base = copy.deepcopy(student.base) if base is None else base
        self.heads = copy.deepcopy(student.heads)
        self.projectors = ModuleList[nn.Module]()
        for index in range(len(student.base_branches)):
            # Built anew, since layers with weight norm cannot be copied.
            projector = parts.projector(width if self.heads else embedding_dim)
            projector.load_state_dict(student.projectors(index)[-1].state_dict())
            self.projectors.append(projector)
        self.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Switch the batch norms; the rest stays in eval mode."""
        super().train(False)
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.train(mode)
        return self

    @torch.no_grad()
    def project(self, features: Features, active: Sequence[int] = (0,)) -> list[Tensor]:
        """A projection for each of the `active` heads: the target of both student branches."""
        map_BCHW, embedding_BD = features
        if not self.heads:
            return [self.projectors[0](embedding_BD)]
        outputs = []
        for index in active:
            head = self.heads[index]
            outputs.append(self.projectors[index](head.embed(head(map_BCHW))))
        return outputs

    def followed(self, student: StudentSide, active: Sequence[int]) -> list[tuple[nn.Module, nn.Module]]:
        """The teacher's modules and the student's that they follow."""
        pairs: list[tuple[nn.Module, nn.Module]] = []
        if self.base is not None and student.base is not None:
            pairs.append((self.base, student.base))
        for index in active:
            pairs.append((self.projectors[index], student.projectors(index)[-1]))
            if self.heads:
                pairs.append((self.heads[index], student.heads[index]))
        return pairs


@torch.no_grad()
def follow(pairs: Iterable[tuple[nn.Module, nn.Module]], momentum: float) -> None:
    """Move weights: teacher ← momentum · teacher + (1 − momentum) · student, for pairs of modules. Buffers are copied."""
    pairs = list(pairs)
    teacher, student = (
        [weight for module in side for weight in module.parameters()] for side in zip(*pairs, strict=True)
    )
    torch._foreach_lerp_(teacher, student, 1.0 - momentum)
    teacher, student = (
        [buffer for module in side for buffer in module.buffers()] for side in zip(*pairs, strict=True)
    )
    if teacher:
        torch._foreach_copy_(teacher, student)


def paired_loss(
    students: Sequence[Sequence[Tensor]], targets: Sequence[Tensor], loss: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """The mean of `loss` over all outputs of a view u and the targets of all other views v; a scalar in float32, without autocast.

    Args:
        students: outputs (B, D) by view, the global views first.
        targets: of the global views, (B, D) each.
        loss: ℓ(student, target).
    """
    with torch.autocast(targets[0].device.type, enabled=False):
        losses = [
            loss(output.float(), target)
            for u, outputs in enumerate(students)
            for v, target in enumerate(targets)
            if u != v
            for output in outputs
        ]
        return torch.stack(losses).mean()


def by_view(
    network: Callable[..., Sequence[Tensor]], views: Iterable[Sequence[Tensor]]
) -> list[list[Tensor]]:
    """The outputs of a network for every view, views of the same size in one pass: its batch norms normalise over all of them together.

    A view is the network's arguments, of which the first tells the size.
    """
    outputs: list[list[Tensor]] = []
    for _, group in groupby(views, key=lambda view: view[0].shape):
        alike = list(group)
        outputs.extend(split(network(*map(torch.cat, zip(*alike, strict=True))), len(alike)))
    return outputs


def split(outputs: Sequence[Tensor], views: int) -> list[list[Tensor]]:
    """Outputs for all views together as the outputs for every view."""
    return [list(of_view) for of_view in zip(*(output.chunk(views) for output in outputs), strict=True)]
