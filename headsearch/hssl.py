"""The student/teacher pair of heterogeneous self-supervised learning, with zero or one head.

Comes in: views of a batch of images, already normalised. Goes out: the loss

    L = ½ · [ ℓ(b_u, A_v) + ℓ(a_u, A_v) ]    with a head,        L = ℓ(b_u, B_v)    without one,

averaged over all ordered pairs of views u ≠ v of which v is global. b and a are what the student makes of its base and of its
head, A and B what the teacher makes of them, ℓ the method's loss. The head sits on the base's feature map, so the gradient of
ℓ(a_u, A_v) trains the base too; the teacher gets none and follows as an exponential moving average.

Li et al., "Enhancing Representations through Heterogeneous Self-Supervised Learning", TPAMI 2025, arXiv 2310.05108.
Shapes: B images, V views, C channels, H × W positions, D features.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from headsearch.base import Base
from headsearch.heads.build import Head
from headsearch.methods.method import Method


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


class Student(nn.Module):
    """Base and head, each with a projector and predictor of its own."""

    def __init__(self, base: Base, head: Head | None, method: Method) -> None:
        super().__init__()
        self.base = base
        self.head = head
        # The base's branch is drawn first: with the same random numbers, it starts the same whatever the head is.
        self.base_branch = Branch(method.projector(base.info.embedding_dim), method.predictor())
        self.head_branch = (
            None if head is None else Branch(method.projector(base.info.width), method.predictor())
        )

    def forward(self, images_BCHW: Tensor) -> list[Tensor]:
        """One output per branch: the base's, then the head's."""
        output = self.base(images_BCHW)
        outputs: list[Tensor] = [self.base_branch(output.embedding)]
        if self.head is not None:
            assert self.head_branch is not None
            outputs.append(self.head_branch(self.head.embed(self.head(output.map))))
        return outputs

    def projectors(self) -> list[nn.Module]:
        """All projectors, the base's first."""
        branches = [self.base_branch] if self.head_branch is None else [self.base_branch, self.head_branch]
        return [branch.projector for branch in branches]


class Teacher(nn.Module):
    """The slow copy that gives the targets: the head's with a head, else the base's. It holds what that takes and no more.

    It is in eval mode (no drop path), but its batch norms normalise by the batch, as the student's do: averaged statistics lag
    behind averaged weights. Its buffers are the student's.
    """

    def __init__(self, student: Student, method: Method) -> None:
        super().__init__()
        self.base = copy.deepcopy(student.base)
        self.head = copy.deepcopy(student.head)
        info = student.base.info
        # Built anew, since layers with weight norm cannot be copied.
        self.projector = method.projector(info.embedding_dim if self.head is None else info.width)
        self.projector.load_state_dict(student.projectors()[-1].state_dict())
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
    def forward(self, images_BCHW: Tensor) -> list[Tensor]:
        """One projection, in a list: the target of every student branch."""
        output = self.base(images_BCHW)
        embedding_BD = output.embedding if self.head is None else self.head.embed(self.head(output.map))
        return [self.projector(embedding_BD)]


class HSSL(nn.Module):
    """Student, teacher and method of one trial."""

    def __init__(self, base: Base, head: Head | None, method: Method) -> None:
        """Take over `base` and `head` as the student's; the teacher starts as their copy."""
        super().__init__()
        self.method = method
        self.student = Student(base, head, method)
        self.teacher = Teacher(self.student, method)

    def loss(self, views: Sequence[Tensor], global_views: int = 2) -> Tensor:
        """The training loss of one batch; a float32 scalar.

        Views of the same size go through a network in one pass, so its batch norms normalise over all of them together.

        Args:
            views: V ≥ 2 views (B, C, H, W) of the same images in the same order, the global ones first; local crops may be smaller.
            global_views: how many of them the teacher sees.
        """
        teacher_outputs = [output for (output,) in _by_view(self.teacher, views[:global_views])]
        student_outputs = _by_view(self.student, views)
        with torch.autocast(views[0].device.type, enabled=False):
            targets = self.method.targets([output.float() for output in teacher_outputs])
            losses = [
                self.method.loss(output.float(), target)
                for u, outputs in enumerate(student_outputs)
                for v, target in enumerate(targets)
                if u != v
                for output in outputs
            ]
            return torch.stack(losses).mean()

    @torch.no_grad()
    def update_teacher(self, momentum: float) -> None:
        """Move the teacher's weights: teacher ← momentum · teacher + (1 − momentum) · student. Buffers are copied."""
        teacher, student = self._followed(nn.Module.parameters)
        torch._foreach_lerp_(teacher, student, 1.0 - momentum)
        teacher, student = self._followed(nn.Module.buffers)
        if teacher:
            torch._foreach_copy_(teacher, student)

    def _followed(
        self, tensors_of: Callable[[nn.Module], Iterable[Tensor]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The teacher's tensors and the student's that they follow."""
        pairs = [
            (self.teacher.base, self.student.base),
            (self.teacher.projector, self.student.projectors()[-1]),
        ]
        if self.teacher.head is not None and self.student.head is not None:
            pairs.append((self.teacher.head, self.student.head))
        teacher = [tensor for module, _ in pairs for tensor in tensors_of(module)]
        student = [tensor for _, module in pairs for tensor in tensors_of(module)]
        return teacher, student


def _by_view(network: nn.Module, views: Sequence[Tensor]) -> list[list[Tensor]]:
    """The outputs of a network for every view, views of the same size in one pass."""
    by_view: list[list[Tensor]] = []
    for _, group in groupby(views, key=lambda view: view.shape):
        alike = list(group)
        outputs = [output.chunk(len(alike)) for output in network(torch.cat(alike))]
        by_view.extend(list(of_view) for of_view in zip(*outputs, strict=True))
    return by_view
