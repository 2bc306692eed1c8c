"""The pairing of heterogeneous self-supervised learning, and the student and teacher that searches and pretrainings train by it.

Comes in: views of a batch of images, already normalised; or, in another's loop (`headsearch.HSSLPair`), the features of views, a map and an
embedding each, from the student's base and from the teacher's. Goes out: the loss

    L = ½ · [ ℓ(b_u, A_v) + ℓ(a_u, A_v) ]    with a head,        L = ℓ(b_u, B_v)    without one,

averaged over all ordered pairs of views u ≠ v of which v is global. b and a are what the student makes of its base and of its head, A and B
what the teacher makes of them, ℓ any loss between a student's output and a target. The head sits on the base's feature map, so the gradient
of ℓ(a_u, A_v) trains the base too; the teacher gets none and follows as an exponential moving average. With several heads the base has a
branch of its own for each, and the loss is the mean over them.

`headsearch.methods.hiding` has the pair of methods that hide parts of images from the student.

Li et al., "Enhancing Representations through Heterogeneous Self-Supervised Learning", TPAMI 2025, arXiv 2310.05108.
Shapes: B images, V views, C channels, H × W positions, D features.
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

from headsearch.base.info import BaseInfo
from headsearch.base.model import Base, BaseOutput
from headsearch.heads.build import Head
from headsearch.methods.method import Method

Features = tuple[Tensor, Tensor]
"""What a base makes of images: the feature map that heads work on, BCHW, and its embedding, BD."""

GLOBAL_VIEWS = 2
"""Of an image's views, those that the teacher sees too."""

_M = TypeVar("_M", bound=nn.Module)
_B = TypeVar("_B", bound=nn.Module | None)


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
    predictor: Callable[[], nn.Module | None]
    """Makes a new predictor, which only the student has and applies after its projector."""
    width: int
    """Channels of the map, and features of a head's embedding."""
    embedding_dim: int
    """Features of the base's embedding."""
    shared: str | None = None
    """Name of a submodule of the student's projectors that base and head have in common, e.g. the layer of prototypes."""

    @classmethod
    def of(cls, method: Method, info: BaseInfo) -> Parts:
        """Those of a method, on a base."""
        embedding_dim = info.width if method.compares_tokens else info.embedding_dim
        return cls(method.projector, method.predictor, info.width, embedding_dim, method.shared)


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


class Student(nn.Module, Generic[_B]):
    """Base and heads. Every head has a projector and predictor of its own, and so has the base for every head."""

    def __init__(self, base: _B, heads: Sequence[Head], parts: Parts) -> None:
        super().__init__()
        self.base = base
        self.heads = ModuleList[Head](heads)
        self.base_branches = ModuleList[Branch]()
        self.head_branches = ModuleList[Branch]()
        # The base's first branch is drawn first: with the same random numbers, it starts the same whatever the head is.
        for index in range(max(1, len(heads))):
            self.base_branches.append(Branch(parts.projector(parts.embedding_dim), parts.predictor()))
            if index < len(heads):
                self.head_branches.append(Branch(parts.projector(parts.width), parts.predictor()))
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


class Teacher(nn.Module, Generic[_B]):
    """The slow copy that gives the targets: each head's with heads, else the base's. It holds what that takes and no more.

    It is in eval mode (no drop path), but its batch norms normalise by the batch, as the student's do: averaged statistics lag
    behind averaged weights. Its buffers are the student's.
    """

    def __init__(self, student: Student[_B], parts: Parts, base: _B | None = None) -> None:
        """`base` is what the teacher has for a base; None: a copy of the student's, if that has one."""
        super().__init__()
        self.base = copy.deepcopy(student.base) if base is None else base
        self.heads = copy.deepcopy(student.heads)
        self.projectors = ModuleList[nn.Module]()
        for index in range(len(student.base_branches)):
            # Built anew, since layers with weight norm cannot be copied.
            projector = parts.projector(parts.width if self.heads else parts.embedding_dim)
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

    def followed(self, student: Student[_B], active: Sequence[int]) -> list[tuple[nn.Module, nn.Module]]:
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


class HSSL(nn.Module):
    """Student, teacher and method of one training."""

    def __init__(self, base: Base, heads: Sequence[Head], method: Method) -> None:
        """Take over `base` and `heads` as the student's; the teacher starts as their copy."""
        super().__init__()
        self.student = self.make_student(base, heads, method)
        self.teacher = self._make_teacher(method)
        # A method may carry state about the teacher's outputs, which differ from head to head.
        self.methods = ModuleList[Method]([method, *(copy.deepcopy(method) for _ in heads[1:])])
        self._dropped: set[int] = set()

    @classmethod
    def make_student(cls, base: Base, heads: Sequence[Head], method: Method) -> Student[Base]:
        """The student alone. Raises `ExperimentError` where the method does not suit the base."""
        method.prepare(base.info)
        return Student(base, heads, Parts.of(method, base.info))

    def _make_teacher(self, method: Method) -> Teacher[Base]:
        return Teacher(self.student, Parts.of(method, self.student.base.info))

    @property
    def pairings(self) -> tuple[int, ...]:
        """Indices of all heads that have not been dropped; without heads the base's own pairing, 0."""
        return tuple(index for index in range(len(self.methods)) if index not in self._dropped)

    def drop(self, index: int) -> list[nn.Parameter]:
        """Let go of a head and all that belongs to it; the others keep their indices. Returns the weights that were trained."""
        assert self.student.heads, "the base's own pairing cannot be dropped"
        student, teacher = self.student, self.teacher
        lists = (student.heads, student.base_branches, student.head_branches)
        weights = [weight for modules in lists for weight in modules[index].parameters()]
        self._dropped.add(index)
        for modules in (*lists, teacher.heads, teacher.projectors):
            modules[index] = nn.Identity()
        return weights

    def begin_step(self, epoch: float, epochs: int) -> None:
        """Tell the method how far training is: called before every step."""
        # Also where a head was dropped: what hides positions, and compares patches, is the first method, whatever becomes of its head.
        for method in self.methods:
            method.begin_step(epoch, epochs)

    def after_backward(self, epoch: float) -> None:
        """Let the method look at the gradients: called between the backward pass and the optimiser's step."""
        for index in self.pairings:
            self.methods[index].after_backward(self.student.projectors(index), epoch)

    def masks(self, count: int, generator: torch.Generator | None = None) -> Tensor | None:
        """What is hidden from the student in the global views of `count` images, drawn by `generator` or else torch's global one.

        As the method's `masks`, [`GLOBAL_VIEWS`, count, H, W] on the CPU; None where the method hides nothing.
        """
        del count, generator
        return None

    def loss(
        self,
        views: Sequence[Tensor],
        active: Sequence[int] | None = None,
        masks: Tensor | None = None,
    ) -> Tensor:
        """The training loss of one batch, the mean of `losses`; a float32 scalar."""
        return torch.stack(self.losses(views, active, masks)).mean()

    def losses(
        self,
        views: Sequence[Tensor],
        active: Sequence[int] | None = None,
        masks: Tensor | None = None,
    ) -> list[Tensor]:
        """The training loss of every active head on one batch, scalars in float32; without heads the single loss of the base.

        Heads have only the base in common: the gradient of some of the losses is free of what is not finite in others.

        Views of the same size go through a network in one pass, so its batch norms normalise over all of them together.

        Args:
            views: V ≥ 2 views (B, C, H, W) of the same images in the same order, the global ones first; local crops may be smaller.
            active: indices of the heads that take part; None: all.
            masks: as `masks` draws them; None: drawn here.
        """
        active = self.pairings if active is None else active
        with torch.no_grad():
            whole = self.teacher.base(torch.cat(list(views[:GLOBAL_VIEWS])))
        teacher_outputs = split(self.teacher.project(whole, active), GLOBAL_VIEWS)
        outputs = self._student_outputs(views, active)
        on_top = self._embedding_loss(outputs)
        return [loss + on_top for loss in self._image_losses(outputs, teacher_outputs, active)]

    def _student_outputs(self, views: Sequence[Tensor], active: Sequence[int]) -> list[list[Tensor]]:
        """What the student makes of views, by view: its projections, then the base's embedding."""
        return by_view(lambda view: self._projected(self.student.base(view), active), [(v,) for v in views])

    def _projected(self, output: BaseOutput, active: Sequence[int]) -> list[Tensor]:
        return [*self.student.project(output, active), output.embedding]

    def _embedding_loss(self, outputs: Sequence[Sequence[Tensor]]) -> Tensor:
        """Of the student's base alone, whatever the heads: the sum over global views, whose `outputs` end with the embedding; 0 where the method has none."""
        total = torch.zeros((), device=outputs[0][-1].device)
        with torch.autocast(total.device.type, enabled=False):
            for output in outputs[:GLOBAL_VIEWS]:
                loss = self.methods[0].embedding_loss(output[-1].float())
                total = total if loss is None else total + loss
        return total

    def _image_losses(
        self,
        student_outputs: Sequence[Sequence[Tensor]],
        teacher_outputs: Sequence[Sequence[Tensor]],
        active: Sequence[int],
    ) -> list[Tensor]:
        """Of every head the pairing's loss; outputs by view, then by head."""
        branches = 2 if self.student.heads else 1
        losses = []
        with torch.autocast(teacher_outputs[0][0].device.type, enabled=False):
            for place, index in enumerate(active):
                method = self.methods[index]
                targets = method.targets([outputs[place].float() for outputs in teacher_outputs])
                own = slice(branches * place, branches * (place + 1))
                losses.append(
                    paired_loss([outputs[own] for outputs in student_outputs], targets, method.loss)
                )
        return losses

    def update_teacher(self, momentum: float, active: Sequence[int] | None = None) -> None:
        """Move the teacher's weights: teacher ← momentum · teacher + (1 − momentum) · student. Buffers are copied.

        Of the heads only those in `active`, None meaning all: one that was not trained in a step has not moved.
        """
        active = self.pairings if active is None else active
        follow(self.teacher.followed(self.student, active), momentum)
