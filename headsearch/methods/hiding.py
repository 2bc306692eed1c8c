"""The student/teacher pair of a method that hides parts of images from the student (`headsearch.methods.masking`).

Without a comparison of tokens the loss is that of the pairing, with a term on top: base against base at the hidden positions. Of a method that
compares tokens it is of base and head at the hidden positions, against the pixels there and the teacher's features.

Shapes: as in `headsearch.methods.hssl`, and M hidden positions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from headsearch.base.model import Base, BaseOutput
from headsearch.heads.build import Head
from headsearch.methods.hssl import GLOBAL_VIEWS, HSSL, Branch, Parts, Student, Teacher, split
from headsearch.methods.masking import LeavingOut, Masking, check_leaving_out, patches, tokens
from headsearch.methods.method import Method


class HidingStudent(Student[Base]):
    """A student with what hides parts of images from its base."""

    def __init__(self, base: Base, heads: Sequence[Head], method: Method) -> None:
        if method.leaves_out:
            check_leaving_out(base)
        method.prepare(base.info)
        super().__init__(base, heads, Parts.of(method, base.info))
        self.leaves_out = method.leaves_out
        self.masking = LeavingOut(base) if method.leaves_out else Masking(base)
        self.patch_projector = method.patch_projector(base.info.width)

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


class HidingTeacher(Teacher[Base]):
    """The slow copy of a `HidingStudent`; it sees images whole."""

    def __init__(self, student: HidingStudent, method: Method) -> None:
        super().__init__(student, Parts.of(method, student.base.info))
        self.patch_projector = method.patch_projector(student.base.info.width)
        if self.patch_projector is not None and student.patch_projector is not None:
            self.patch_projector.load_state_dict(student.patch_projector.state_dict())
            self.patch_projector.requires_grad_(False)
        self.train()

    @torch.no_grad()
    def project_tokens(self, output: BaseOutput, active: Sequence[int], hidden_M: Tensor) -> list[Tensor]:
        """As `project`, from the features at the hidden positions instead of embeddings."""
        maps = [self.heads[index](output.map) for index in active] if self.heads else [output.map]
        return [
            self.projectors[index](tokens(each, hidden_M)) for index, each in zip(active, maps, strict=True)
        ]

    def followed(self, student: Student[Base], active: Sequence[int]) -> list[tuple[nn.Module, nn.Module]]:
        assert isinstance(student, HidingStudent)
        pairs = super().followed(student, active)
        if self.patch_projector is not None and student.patch_projector is not None:
            pairs.append((self.patch_projector, student.patch_projector))
        return pairs


class HidingHSSL(HSSL):
    """Student, teacher and method of one training in which the student's global views have positions hidden."""

    student: HidingStudent
    teacher: HidingTeacher

    def __init__(self, base: Base, heads: Sequence[Head], method: Method) -> None:
        super().__init__(base, heads, method)
        self.student.masking.attach(base)

    @classmethod
    def make_student(cls, base: Base, heads: Sequence[Head], method: Method) -> HidingStudent:
        return HidingStudent(base, heads, method)

    def _make_teacher(self, method: Method) -> HidingTeacher:
        return HidingTeacher(self.student, method)

    def after_backward(self, epoch: float) -> None:
        super().after_backward(epoch)
        if self.student.patch_projector is not None:
            self.methods[0].after_backward([self.student.patch_projector], epoch)

    def masks(self, count: int, generator: torch.Generator | None = None) -> Tensor | None:
        grid = self.student.base.info.grid
        return torch.stack([self.methods[0].masks(count, grid, generator) for _ in range(GLOBAL_VIEWS)])

    def losses(
        self,
        views: Sequence[Tensor],
        active: Sequence[int] | None = None,
        masks: Tensor | None = None,
    ) -> list[Tensor]:
        active = self.pairings if active is None else active
        if masks is None:
            masks = self.masks(len(views[0]))
        assert masks is not None
        images_BCHW = torch.cat(list(views[:GLOBAL_VIEWS]))
        mask_BHW = masks.flatten(0, 1)
        # Found on the CPU: an accelerator would have to be waited for, to learn how many there are.
        times_M = mask_BHW.flatten().to(torch.int64).clamp_min(0)
        hidden_M = torch.arange(len(times_M)).repeat_interleave(times_M)
        hidden_M = hidden_M.to(images_BCHW.device, non_blocking=True)
        with torch.no_grad():
            whole = self.teacher.base(images_BCHW)
        seen = self.student.masking(self.student.base, images_BCHW, mask_BHW != 0)
        if self.methods[0].compares_tokens:
            on_top = self._embedding_loss(split([seen.embedding], GLOBAL_VIEWS))
            token_losses = self._token_losses(images_BCHW, seen, whole, hidden_M, active)
            return [loss + on_top for loss in token_losses]
        teacher_outputs = split(self.teacher.project(whole, active), GLOBAL_VIEWS)
        outputs = split(self._projected(seen, active), GLOBAL_VIEWS)
        outputs += self._student_outputs(views[GLOBAL_VIEWS:], active)
        on_top = self._embedding_loss(outputs) + self._patch_loss(seen, whole, hidden_M, mask_BHW)
        return [loss + on_top for loss in self._image_losses(outputs, teacher_outputs, active)]

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


def pair_of(method: type[Method] | Method) -> type[HSSL]:
    """The pair that a method trains."""
    return HidingHSSL if method.hides else HSSL
