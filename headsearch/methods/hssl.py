"""The student/teacher pair that searches and pretrainings train: a base, zero, one or many heads, and a method.

Comes in: views of a batch of images, already normalised. Goes out: the loss of `headsearch.methods.pairing`, the mean over the heads where there
are several: the base then has a branch of its own for every head. Methods that hide parts of the images from the student are dealt with here.

Shapes: B images, V views, C channels, H × W positions, D features, M hidden positions.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, groupby

import torch
from torch import Tensor, nn

from headsearch.base.model import Base, BaseOutput
from headsearch.heads.build import Head
from headsearch.methods.masking import LeavingOut, Masking, check_leaving_out, patches, tokens
from headsearch.methods.method import Method
from headsearch.methods.pairing import (
    Branch,
    ModuleList,
    Parts,
    StudentSide,
    TeacherSide,
    by_view,
    follow,
    paired_loss,
    split,
)


def _parts(method: Method) -> Parts:
    return Parts(method.projector, method.predictor, method.shared)


class Student(StudentSide):
    """Base and heads with what the method puts on them, and what hides parts of images from the base."""

    base: Base

    def __init__(self, base: Base, heads: Sequence[Head], method: Method) -> None:
        info = base.info
        if method.leaves_out:
            check_leaving_out(base)
        method.prepare(info)
        embedding_dim = info.width if method.compares_tokens else info.embedding_dim
        super().__init__(base, heads, _parts(method), width=info.width, embedding_dim=embedding_dim)
        self.leaves_out = method.leaves_out
        self.masking = (LeavingOut(base) if method.leaves_out else Masking(base)) if method.hides else None
        self.patch_projector = method.patch_projector(info.width)

    def forward(self, images_BCHW: Tensor, active: Sequence[int] = (0,)) -> list[Tensor]:
        """As `project`, from images."""
        return self.project(self.base(images_BCHW), active)

    def project_tokens(self, output: BaseOutput, active: Sequence[int], hidden_M: Tensor) -> list[Tensor]:
        """As `project`, from the features at the hidden positions instead of embeddings."""
        outputs: list[Tensor] = []
        for index in active:
            outputs.append(self._at(hidden_M, output.map, self.base_branches[index]))
            if self.heads:
                outputs.append(self._at(hidden_M, self.heads[index](output.map), self.head_branches[index]))
        return outputs

    def _at(self, hidden_M: Tensor, map_BCHW: Tensor, branch: Branch) -> Tensor:
        if not self.leaves_out:
            predicted_MD: Tensor = branch(tokens(map_BCHW, hidden_M))
            return predicted_MD
        predicted_BND: Tensor = branch(map_BCHW.flatten(2).mT)
        return predicted_BND.flatten(0, 1).index_select(0, hidden_M)


class Teacher(TeacherSide):
    """The slow copy of a `Student`."""

    base: Base

    def __init__(self, student: Student, method: Method) -> None:
        info = student.base.info
        embedding_dim = info.width if method.compares_tokens else info.embedding_dim
        super().__init__(student, _parts(method), width=info.width, embedding_dim=embedding_dim)
        self.patch_projector = method.patch_projector(info.width)
        if self.patch_projector is not None and student.patch_projector is not None:
            self.patch_projector.load_state_dict(student.patch_projector.state_dict())
            self.patch_projector.requires_grad_(False)
        self.train()

    @torch.no_grad()
    def forward(self, images_BCHW: Tensor, active: Sequence[int] = (0,)) -> list[Tensor]:
        """As `project`, from images."""
        return self.project(self.base(images_BCHW), active)

    @torch.no_grad()
    def project_tokens(self, output: BaseOutput, active: Sequence[int], hidden_M: Tensor) -> list[Tensor]:
        """As `project`, from the features at the hidden positions instead of embeddings."""
        maps = [self.heads[index](output.map) for index in active] if self.heads else [output.map]
        return [
            self.projectors[index](tokens(each, hidden_M)) for index, each in zip(active, maps, strict=True)
        ]

    def followed(self, student: StudentSide, active: Sequence[int]) -> list[tuple[nn.Module, nn.Module]]:
        assert isinstance(student, Student)
        pairs = super().followed(student, active)
        if self.patch_projector is not None and student.patch_projector is not None:
            pairs.append((self.patch_projector, student.patch_projector))
        return pairs


class HSSL(nn.Module):
    """Student, teacher and method of one training."""

    def __init__(self, base: Base, heads: Sequence[Head], method: Method) -> None:
        """Take over `base` and `heads` as the student's; the teacher starts as their copy."""
        super().__init__()
        self.student = Student(base, heads, method)
        self.teacher = Teacher(self.student, method)
        # A method may carry state about the teacher's outputs, which differ from head to head.
        self.methods = ModuleList[Method]([method, *(copy.deepcopy(method) for _ in heads[1:])])
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

        As the method's `masks`, [global_views, count, H, W] on the CPU; None where the method hides nothing.
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
            teacher_outputs = by_view(
                partial(self.teacher, active=active), [(view,) for view in views[:global_views]]
            )
            outputs, on_top = self._student_outputs(self._passes(views), global_views, active)
            return [loss + on_top for loss in self._image_losses(outputs, teacher_outputs, active)]
        if masks is None:
            masks = self.masks(len(views[0]), None, global_views)
        assert masks is not None
        images_BCHW = torch.cat(list(views[:global_views]))
        mask_BHW = masks.flatten(0, 1)
        # Found on the CPU: an accelerator would have to be waited for, to learn how many there are.
        times_M = mask_BHW.flatten().to(torch.int64).clamp_min(0)
        hidden_M = torch.arange(len(times_M)).repeat_interleave(times_M)
        hidden_M = hidden_M.to(images_BCHW.device, non_blocking=True)
        with torch.no_grad():
            whole = self.teacher.base(images_BCHW)
        seen = self.student.masking(self.student.base, images_BCHW, mask_BHW != 0)
        if self.methods[0].compares_tokens:
            on_top = self._embedding_loss(seen.embedding.chunk(global_views))
            token_losses = self._token_losses(images_BCHW, seen, whole, hidden_M, active)
            return [loss + on_top for loss in token_losses]
        teacher_outputs = split(self.teacher.project(whole, active), global_views)
        passes = chain([(global_views, seen)], self._passes(views[global_views:]))
        outputs, on_top = self._student_outputs(passes, global_views, active)
        on_top = on_top + self._patch_loss(seen, whole, hidden_M, mask_BHW)
        return [loss + on_top for loss in self._image_losses(outputs, teacher_outputs, active)]

    def _passes(self, views: Iterable[Tensor]) -> Iterator[tuple[int, BaseOutput]]:
        """What the student's base makes of views, those of the same size in one pass; each with the number of its views."""
        for _, group in groupby(views, key=lambda view: view.shape):
            alike = list(group)
            yield len(alike), self.student.base(torch.cat(alike))

    def _student_outputs(
        self, passes: Iterable[tuple[int, BaseOutput]], global_views: int, active: Sequence[int]
    ) -> tuple[list[list[Tensor]], Tensor]:
        """The student's projections by view, and the loss of the base's embeddings of global views."""
        outputs: list[list[Tensor]] = []
        embeddings: list[Tensor] = []
        for count, output in passes:
            outputs += split(self.student.project(output, active), count)
            embeddings += output.embedding.chunk(count)
        return outputs, self._embedding_loss(embeddings[:global_views])

    def _embedding_loss(self, embeddings: Sequence[Tensor]) -> Tensor:
        """Of the student's base alone, whatever the heads: the sum over global views, (B, D) each; 0 where the method has none."""
        total = torch.zeros((), device=embeddings[0].device)
        with torch.autocast(total.device.type, enabled=False):
            for embedding in embeddings:
                loss = self.methods[0].embedding_loss(embedding.float())
                total = total if loss is None else total + loss
        return total

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
