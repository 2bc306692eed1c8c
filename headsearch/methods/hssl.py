"""The student/teacher pair of heterogeneous self-supervised learning, with zero, one or many heads.

Comes in: views of a batch of images, already normalised. Goes out: the loss

    L = ½ · [ ℓ(b_u, A_v) + ℓ(a_u, A_v) ]    with a head,        L = ℓ(b_u, B_v)    without one,

averaged over all ordered pairs of views u ≠ v of which v is global, and over the heads where there are several: the base then has a
branch b of its own for every head. b and a are what the student makes of its base and of its
head, A and B what the teacher makes of them, ℓ the method's loss. The head sits on the base's feature map, so the gradient of
ℓ(a_u, A_v) trains the base too; the teacher gets none and follows as an exponential moving average.

Li et al., "Enhancing Representations through Heterogeneous Self-Supervised Learning", TPAMI 2025, arXiv 2310.05108.
Shapes: B images, V views, C channels, H × W positions, D features.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Generic, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from headsearch.base.model import Base, BaseOutput
from headsearch.heads.build import Head
from headsearch.methods.masking import Masking, patches, tokens
from headsearch.methods.method import Method

_M = TypeVar("_M", bound=nn.Module)


class _Modules(nn.ModuleList, Generic[_M]):
    """A list of modules that are all of one type, for the type checker."""

    if TYPE_CHECKING:

        def __getitem__(self, index: int) -> _M: ...  # type: ignore[override]

        def __iter__(self) -> Iterator[_M]: ...


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
    """Base and heads. Every head has a projector and predictor of its own, and so has the base for every head."""

    def __init__(self, base: Base, heads: Sequence[Head], method: Method) -> None:
        super().__init__()
        self.base = base
        self.heads = _Modules[Head](heads)
        self.base_branches = _Modules[Branch]()
        self.head_branches = _Modules[Branch]()
        info = base.info
        method.prepare(info)
        base_dim = info.width if method.compares_tokens else info.embedding_dim
        # The base's first branch is drawn first: with the same random numbers, it starts the same whatever the head is.
        for index in range(max(1, len(heads))):
            self.base_branches.append(Branch(method.projector(base_dim), method.predictor()))
            if index < len(heads):
                self.head_branches.append(Branch(method.projector(info.width), method.predictor()))
        self.masking = Masking(base) if method.hides else None
        self.patch_projector = method.patch_projector(info.width)

    def forward(self, images_BCHW: Tensor, active: Sequence[int] = (0,)) -> list[Tensor]:
        """The base's output, then the head's, for each of the `active` heads in turn; without heads the base's alone."""
        return self.project(self.base(images_BCHW), active)

    def project(self, output: BaseOutput, active: Sequence[int]) -> list[Tensor]:
        """As `forward`, from what the base made of the images."""
        outputs: list[Tensor] = []
        for index in active:
            outputs.append(self.base_branches[index](output.embedding))
            if self.heads:
                head = self.heads[index]
                outputs.append(self.head_branches[index](head.embed(head(output.map))))
        return outputs

    def project_tokens(self, output: BaseOutput, active: Sequence[int], hidden_M: Tensor) -> list[Tensor]:
        """As `project`, from the features at the hidden positions instead of embeddings."""
        outputs: list[Tensor] = []
        for index in active:
            outputs.append(self.base_branches[index](tokens(output.map, hidden_M)))
            if self.heads:
                outputs.append(self.head_branches[index](tokens(self.heads[index](output.map), hidden_M)))
        return outputs

    def projectors(self, index: int = 0) -> list[nn.Module]:
        """The projectors of one pairing, the base's first."""
        projectors = [self.base_branches[index].projector]
        return [*projectors, self.head_branches[index].projector] if self.heads else projectors


class Teacher(nn.Module):
    """The slow copy that gives the targets: each head's with heads, else the base's. It holds what that takes and no more.

    It is in eval mode (no drop path), but its batch norms normalise by the batch, as the student's do: averaged statistics lag
    behind averaged weights. Its buffers are the student's.
    """

    def __init__(self, student: Student, method: Method) -> None:
        super().__init__()
        self.base = copy.deepcopy(student.base)
        self.heads = copy.deepcopy(student.heads)
        info = student.base.info
        self.projectors = _Modules[nn.Module]()
        for index in range(len(student.base_branches)):
            # Built anew, since layers with weight norm cannot be copied.
            wide = self.heads or method.compares_tokens
            projector = method.projector(info.width if wide else info.embedding_dim)
            projector.load_state_dict(student.projectors(index)[-1].state_dict())
            self.projectors.append(projector)
        self.patch_projector = method.patch_projector(info.width)
        if self.patch_projector is not None and student.patch_projector is not None:
            self.patch_projector.load_state_dict(student.patch_projector.state_dict())
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
    def forward(self, images_BCHW: Tensor, active: Sequence[int] = (0,)) -> list[Tensor]:
        """A projection for each of the `active` heads: the target of both student branches."""
        return self.project(self.base(images_BCHW), active)

    @torch.no_grad()
    def project(self, output: BaseOutput, active: Sequence[int]) -> list[Tensor]:
        """As `forward`, from what the base made of the images."""
        if not self.heads:
            return [self.projectors[0](output.embedding)]
        outputs = []
        for index in active:
            head = self.heads[index]
            outputs.append(self.projectors[index](head.embed(head(output.map))))
        return outputs

    @torch.no_grad()
    def project_tokens(self, output: BaseOutput, active: Sequence[int], hidden_M: Tensor) -> list[Tensor]:
        """As `project`, from the features at the hidden positions instead of embeddings."""
        maps = [self.heads[index](output.map) for index in active] if self.heads else [output.map]
        return [
            self.projectors[index](tokens(each, hidden_M)) for index, each in zip(active, maps, strict=True)
        ]


class HSSL(nn.Module):
    """Student, teacher and method of one training."""

    def __init__(self, base: Base, heads: Sequence[Head], method: Method) -> None:
        """Take over `base` and `heads` as the student's; the teacher starts as their copy."""
        super().__init__()
        self.student = Student(base, heads, method)
        self.teacher = Teacher(self.student, method)
        # A method may carry state about the teacher's outputs, which differ from head to head.
        self.methods = _Modules[Method]([method, *(copy.deepcopy(method) for _ in heads[1:])])
        if self.student.masking is not None:
            self.student.masking.attach(base)

        self._dropped: set[int] = set()

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
        if self.student.patch_projector is not None:
            self.methods[0].after_backward([self.student.patch_projector], epoch)

    def masks(
        self, count: int, generator: torch.Generator | None = None, global_views: int = 2
    ) -> Tensor | None:
        """What is hidden from the student in the global views of `count` images, drawn by `generator` or else torch's global one.

        Bool [global_views, count, H, W] on the CPU; None where the method hides nothing.
        """
        if self.student.masking is None:
            return None
        grid = self.student.base.info.grid
        return torch.stack([self.methods[0].masks(count, grid, generator) for _ in range(global_views)])

    def loss(
        self,
        views: Sequence[Tensor],
        global_views: int = 2,
        active: Sequence[int] | None = None,
        masks: Tensor | None = None,
    ) -> Tensor:
        """The training loss of one batch, the mean of `losses`; a float32 scalar."""
        return torch.stack(self.losses(views, global_views, active, masks)).mean()

    def losses(
        self,
        views: Sequence[Tensor],
        global_views: int = 2,
        active: Sequence[int] | None = None,
        masks: Tensor | None = None,
    ) -> list[Tensor]:
        """The training loss of every active head on one batch, scalars in float32; without heads the single loss of the base.

        Heads have only the base in common: the gradient of some of the losses is free of what is not finite in others.

        Views of the same size go through a network in one pass, so its batch norms normalise over all of them together.

        Args:
            views: V ≥ 2 views (B, C, H, W) of the same images in the same order, the global ones first; local crops may be smaller.
            global_views: how many of them the teacher sees.
            active: indices of the heads that take part; None: all.
            masks: as `masks` draws them; None: drawn here.
        """
        active = self.pairings if active is None else active
        if self.student.masking is None:
            teacher_outputs = _by_view(self.teacher, views[:global_views], active)
            return self._image_losses(_by_view(self.student, views, active), teacher_outputs, active)
        if masks is None:
            masks = self.masks(len(views[0]), None, global_views)
        assert masks is not None
        images_BCHW = torch.cat(list(views[:global_views]))
        mask_BHW = masks.flatten(0, 1)
        # Found on the CPU: an accelerator would have to be waited for, to learn how many there are.
        hidden_M = mask_BHW.flatten().nonzero().flatten().to(images_BCHW.device, non_blocking=True)
        with torch.no_grad():
            whole = self.teacher.base(images_BCHW)
        on_device = mask_BHW.to(images_BCHW.device, non_blocking=True)
        seen = self.student.masking(self.student.base, images_BCHW, on_device)
        if self.methods[0].compares_tokens:
            return self._token_losses(images_BCHW, seen, whole, hidden_M, active)
        teacher_outputs = _split(self.teacher.project(whole, active), global_views)
        student_outputs = _split(self.student.project(seen, active), global_views)
        student_outputs += _by_view(self.student, views[global_views:], active)
        image_losses = self._image_losses(student_outputs, teacher_outputs, active)
        patch_loss = self._patch_loss(seen, whole, hidden_M, mask_BHW)
        return [loss + patch_loss for loss in image_losses]

    def _patch_loss(self, seen: BaseOutput, whole: BaseOutput, hidden_M: Tensor, mask_BHW: Tensor) -> Tensor:
        """Base against base at the hidden positions, whatever the heads."""
        assert self.student.patch_projector is not None
        assert self.teacher.patch_projector is not None
        student_MD = self.student.patch_projector(tokens(seen.map, hidden_M))
        with torch.no_grad():
            teacher_MD = self.teacher.patch_projector(tokens(whole.map, hidden_M))
        with torch.autocast(hidden_M.device.type, enabled=False):
            return self.methods[0].patch_loss(student_MD.float(), teacher_MD.float(), mask_BHW)

    def _token_losses(
        self,
        images_BCHW: Tensor,
        seen: BaseOutput,
        whole: BaseOutput,
        hidden_M: Tensor,
        active: Sequence[int],
    ) -> list[Tensor]:
        """Both students of every head against the pixels and the teacher's features at the hidden positions of the same view."""
        outputs = self.student.project_tokens(seen, active, hidden_M)
        features = self.teacher.project_tokens(whole, active, hidden_M)
        pixels = patches(images_BCHW, self.student.base.info.grid, hidden_M)
        branches = len(outputs) // len(active)
        with torch.autocast(hidden_M.device.type, enabled=False):
            losses = [
                self.methods[active[place // branches]].loss(
                    output.float(), torch.cat([pixels, features[place // branches].float()], dim=1)
                )
                for place, output in enumerate(outputs)
            ]
        return [
            torch.stack(losses[branches * place : branches * (place + 1)]).mean()
            for place in range(len(active))
        ]

    def _image_losses(
        self,
        student_outputs: Sequence[Sequence[Tensor]],
        teacher_outputs: Sequence[Sequence[Tensor]],
        active: Sequence[int],
    ) -> list[Tensor]:
        """Of every head the mean over all pairs of different views; outputs by view, then by head."""
        branches = 2 if self.student.heads else 1
        losses_of: list[Tensor] = []
        with torch.autocast(teacher_outputs[0][0].device.type, enabled=False):
            for place, index in enumerate(active):
                method = self.methods[index]
                targets = method.targets([outputs[place].float() for outputs in teacher_outputs])
                own = slice(branches * place, branches * (place + 1))
                losses = [
                    method.loss(output.float(), target)
                    for u, outputs in enumerate(student_outputs)
                    for v, target in enumerate(targets)
                    if u != v
                    for output in outputs[own]
                ]
                losses_of.append(torch.stack(losses).mean())
        return losses_of

    @torch.no_grad()
    def update_teacher(self, momentum: float, active: Sequence[int] | None = None) -> None:
        """Move the teacher's weights: teacher ← momentum · teacher + (1 − momentum) · student. Buffers are copied.

        Of the heads only those in `active`, None meaning all: one that was not trained in a step has not moved.
        """
        active = self.pairings if active is None else active
        teacher, student = self._followed(nn.Module.parameters, active)
        torch._foreach_lerp_(teacher, student, 1.0 - momentum)
        teacher, student = self._followed(nn.Module.buffers, active)
        if teacher:
            torch._foreach_copy_(teacher, student)

    def _followed(
        self, tensors_of: Callable[[nn.Module], Iterable[Tensor]], active: Sequence[int]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The teacher's tensors and the student's that they follow."""
        pairs: list[tuple[nn.Module, nn.Module]] = [(self.teacher.base, self.student.base)]
        for index in active:
            pairs.append((self.teacher.projectors[index], self.student.projectors(index)[-1]))
            if self.teacher.heads:
                pairs.append((self.teacher.heads[index], self.student.heads[index]))
        if self.teacher.patch_projector is not None and self.student.patch_projector is not None:
            pairs.append((self.teacher.patch_projector, self.student.patch_projector))
        teacher = [tensor for module, _ in pairs for tensor in tensors_of(module)]
        student = [tensor for _, module in pairs for tensor in tensors_of(module)]
        return teacher, student


def _by_view(network: nn.Module, views: Sequence[Tensor], active: Sequence[int]) -> list[list[Tensor]]:
    """The outputs of a network for every view, views of the same size in one pass."""
    by_view: list[list[Tensor]] = []
    for _, group in groupby(views, key=lambda view: view.shape):
        alike = list(group)
        by_view.extend(_split(network(torch.cat(alike), active), len(alike)))
    return by_view


def _split(outputs: Sequence[Tensor], views: int) -> list[list[Tensor]]:
    """Outputs for all views together as the outputs for every view."""
    return [list(of_view) for of_view in zip(*(output.chunk(views) for output in outputs), strict=True)]
