"""`HSSLPair`: a head for your own training loop. It takes the features of base and teacher and returns the terms of the loss.

The pairing is the one of searches and pretrainings (`headsearch.methods.hssl`). The loop keeps its images, its forward
passes, its loss and its optimiser.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from headsearch.base.info import BaseInfo
from headsearch.errors import HeadError
from headsearch.export import ExportedHead, HeadSource, given_head
from headsearch.heads.build import Head, build_heads
from headsearch.heads.config import HeadConfig
from headsearch.heads.registry import parse_head
from headsearch.methods.hssl import Features, Parts, Student, Teacher, by_view, follow, paired_loss

Criterion = Callable[[Tensor, Tensor], Tensor]
"""ℓ(student, target): a scalar from two (B, D) tensors."""


class HSSLPair(nn.Module):
    """Pairs a base with a head, in student and teacher.

    >>> pair = HSSLPair({"convnext": {"depth": 1}}, lambda width: nn.Linear(width, 32), map_shape=(16, 4, 4))
    >>> seen = [(torch.randn(8, 16, 4, 4), torch.randn(8, 16)) for _ in range(2)]     # of the student's base: map and embedding, a view each
    >>> target = [(torch.randn(8, 16, 4, 4), torch.randn(8, 16)) for _ in range(2)]   # of the teacher's base
    >>> terms = pair(seen, target).terms(nn.functional.mse_loss)
    >>> terms.loss.backward()
    >>> pair.update_teacher(0.996)

    Give the optimiser `pair.student.parameters()`: the student, the head, and their projectors and predictors. The student's own
    `state_dict` contains nothing of the others.

    Source: Li et al., arXiv 2310.05108.
    """

    def __init__(
        self,
        head: HeadSource | nn.Module | None,
        projector: Callable[[int], nn.Module],
        *,
        map_shape: tuple[int, int, int],
        embedding_dim: int | None = None,
        predictor: Callable[[], nn.Module | None] = lambda: None,
        shared: str | None = None,
        student: nn.Module | None = None,
        teacher: nn.Module | None = None,
    ) -> None:
        """Build the head, the projectors of base and head, and their predictors, with weights from torch's global generator.

        Args:
            head: a `head.yaml`; a description such as `{"convnext": {"depth": 3}}` or `"paper"`; a module from maps to maps of the same shape; or
                None for no head, the control.
            projector: makes a new projector for embeddings with the given number of features; called for base, head and teacher.
            map_shape: shape of the feature map of one image: channels, height, width.
            embedding_dim: features of the base's embedding; None: the channels of the map.
            predictor: makes a new predictor for the output of a projector; only the student has predictors.
            shared: name of a submodule of the projectors that base and head share, e.g. `last_layer`, the prototypes of lightly's
                `DINOProjectionHead`.
            student: the module that the loop trains. None: neither it nor its teacher is part of the pair.
            teacher: its teacher, which `update_teacher` moves. None: a copy of `student`, `pair.teacher.base`.

        Raises:
            HeadError: a head that cannot be read or built, is of another width, or is a set.
            ValueError: a teacher without a student, or a `projector` that gives the same weights twice.
        """
        super().__init__()
        if teacher is not None and student is None:
            raise ValueError("HSSLPair: a teacher follows a student; give both, or none of them")
        width = map_shape[0]
        embedding_dim = width if embedding_dim is None else embedding_dim
        heads = [] if head is None else [_built(head, map_shape, embedding_dim)]
        parts = Parts(projector, predictor, width, embedding_dim, shared)
        self.student = Student(student, heads, parts)
        self.teacher = Teacher(self.student, parts, teacher)
        if set(self.student.parameters()) & set(self.teacher.parameters()):
            raise ValueError(
                "HSSLPair: student and teacher have weights in common; expected a projector that is new at every call "
                "(name what base and head have in common in `shared`)"
            )

    def forward(self, student: Sequence[Features], teacher: Sequence[Features]) -> Projections:
        """The first call: turn the features of views into what the loss compares. Views of one size pass the projectors in one batch.

        Args:
            student: for every view, the base's map (B, C, H, W) and embedding (B, D); the global views first.
            teacher: the same from the teacher's base, for the global views. It gets no gradient.

        Raises:
            HeadError: the head does not accept the map, or a module used as head does not keep its shape.
        """
        seen = by_view(lambda *features: self.student.project(features), student)
        targets = by_view(lambda *features: self.teacher.project(features), teacher)
        return Projections(
            base=[outputs[0] for outputs in seen],
            head=[outputs[1] for outputs in seen] if self.student.heads else None,
            target=[target for (target,) in targets],
        )

    def update_teacher(self, momentum: float) -> None:
        """After the optimiser's step: teacher ← momentum · teacher + (1 − momentum) · student, for all modules of the pair."""
        follow(self.teacher.followed(self.student, (0,)), momentum)


@dataclass(frozen=True)
class Projections:
    """What the loss compares: a (B, D) tensor per view."""

    base: list[Tensor]
    """b: the student's output for its base."""
    head: list[Tensor] | None
    """a: the student's output for its head; None without a head."""
    target: list[Tensor]
    """A: the teacher's output for its head, for the global views; without a head B, for its base."""

    def terms(self, criterion: Criterion) -> LossTerms:
        """The second call: ℓ(b_u, A_v) and ℓ(a_u, A_v), each the mean over all views u ≠ v; float32, also under autocast."""

        def term(outputs: list[Tensor]) -> Tensor:
            return paired_loss([[output] for output in outputs], self.target, criterion)

        return LossTerms(term(self.base), None if self.head is None else term(self.head))

    def stacked(self) -> tuple[list[Tensor], list[Tensor]]:
        """Students and targets with the rows of base and head stacked. For a criterion that takes the views of a whole batch, averages
        over rows, and keeps a state that must move once a step, such as lightly's `DINOLoss`. Its value is then `LossTerms.loss`."""
        if self.head is None:
            return self.base, self.target
        students = [torch.cat(rows) for rows in zip(self.base, self.head, strict=True)]
        return students, [torch.cat([target, target]) for target in self.target]


@dataclass(frozen=True)
class LossTerms:
    """The terms of the loss, scalars."""

    base: Tensor
    """The base against the target."""
    head: Tensor | None
    """The head against the target; None without one."""

    @property
    def loss(self) -> Tensor:
        """Their mean, to be minimised."""
        return self.base if self.head is None else (self.base + self.head) / 2


class _OtherHead(Head):
    """A head from elsewhere, with the norm of its embedding."""

    def __init__(self, module: nn.Module, width: int, grid: tuple[int, int]) -> None:
        super().__init__(HeadConfig(), width, grid)
        self.module = module

    def forward(self, map_BCHW: Tensor) -> Tensor:
        seen_BCHW: Tensor = self.module(map_BCHW)
        if seen_BCHW.shape != map_BCHW.shape:
            raise HeadError(
                f"{type(self.module).__name__} is no head: from a map of shape {tuple(map_BCHW.shape)} it makes "
                f"{tuple(seen_BCHW.shape)}; expected the same shape"
            )
        return seen_BCHW


def _built(head: HeadSource | nn.Module, map_shape: tuple[int, int, int], embedding_dim: int) -> Head:
    width, *grid = map_shape
    if isinstance(head, Head):
        if head.width != width:
            raise HeadError(f"the head has width {head.width}: the map has {width} channels")
        return head
    if isinstance(head, nn.Module):
        return _OtherHead(head, width, (grid[0], grid[1]))
    found = given_head(head)
    where = ""
    if isinstance(found, ExportedHead):
        where = f"{found.head_id if isinstance(head, ExportedHead) else head}: "
        if found.base.info.width != width:
            raise HeadError(
                f"{where}the head has width {found.base.info.width}: the map has {width} channels"
            )
        found = parse_head(found.config)
    info = BaseInfo("the student", "none", width, (grid[0], grid[1]), embedding_dim, 0, 0, 0, 0)
    heads = build_heads(found, info)
    if len(heads) != 1:
        raise HeadError(f"{where}a set of {len(heads)} heads; expected a single one")
    return heads[0]
