"""What a self-supervised method is to headsearch: projectors, predictors, and the loss between a student and a target.

Which output is compared with which is no business of a method; `headsearch.methods.hssl` pairs them. Shapes: B images, D features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from headsearch.base.info import BaseInfo
from headsearch.methods.options import ProjectedOptions


def scaled_size(option: int | None, width: int, *, factor: int, paper: int) -> int:
    """A layer's size: the option where one is given, else `factor` times the base's width and at most the paper's size."""
    return option if option is not None else min(paper, factor * width)


class Method(nn.Module, ABC):
    """One self-supervised objective. A module, since it may carry state (DINO's centre) that checkpoints must hold."""

    hides: ClassVar[bool] = False
    """Whether the student sees its global views with positions hidden, which `masks` draws; the teacher sees them whole."""
    compares_tokens: ClassVar[bool] = False
    """Whether projectors, predictors and `loss` are given the features of hidden positions instead of embeddings of images, and targets
    are the pixels there followed by the teacher's projection."""
    leaves_out: ClassVar[bool] = False
    """Whether hidden positions are left out of what the student's base sees, and filled in its map. The student's projectors and predictors
    are then given all positions of a map (B, N, C), for hidden ones can be told from the others alone. Takes plain ViTs only."""

    least_seen: float = 1.0
    """The smallest part of a global view that the student's base computes on, for estimates of memory."""
    shared: str | None = None
    """Name of a submodule of the student's projectors that base and head have in common."""

    def __init_subclass__(cls) -> None:
        """Parts that belong together are there together. Raises `TypeError` where a method lacks one that it would be asked for."""
        super().__init_subclass__()
        if cls.hides and cls.masks is Method.masks:
            raise TypeError(f"{cls.__name__} hides positions, and needs masks")
        if cls.leaves_out and not (cls.hides and cls.compares_tokens):
            raise TypeError(f"{cls.__name__} leaves positions out, and needs hides and compares_tokens")
        patches = cls.patch_projector is not Method.patch_projector
        if cls.hides and not cls.compares_tokens and not patches:
            raise TypeError(
                f"{cls.__name__} hides positions of images that it compares whole, and needs a patch_projector"
            )
        if patches and cls.patch_loss is Method.patch_loss:
            raise TypeError(f"{cls.__name__} has a patch_projector, and needs a patch_loss")

    def prepare(self, info: BaseInfo) -> None:
        """Called once with facts about the base, before a projector is asked for. Raises `ExperimentError` where it does not suit."""
        del info

    @abstractmethod
    def projector(self, in_dim: int) -> nn.Module:
        """A new projector from embeddings of `in_dim` features; all projectors of a method agree in their output size."""

    def predictor(self) -> nn.Module | None:
        """A new predictor, which only the student has and applies after its projector; None where the method has none."""
        return None

    def masks(self, count: int, grid: tuple[int, int], generator: torch.Generator | None) -> Tensor:
        """For a method that hides: which positions of a global view's `count` images are hidden; bool [count, H, W], on the CPU.

        Of a method that compares tokens it may be int8: 0 is seen, k > 0 hidden and counted k times in the loss, and -1 hidden alone.
        """
        raise NotImplementedError

    def patch_projector(self, in_dim: int) -> nn.Module | None:
        """A projector of the base's features at hidden positions, for a method that has a `patch_loss` on top of its `loss`."""
        del in_dim
        return None

    def patch_loss(self, student_MD: Tensor, teacher_MD: Tensor, mask_BHW: Tensor) -> Tensor:
        """A scalar: the loss of the student base's projections at the M hidden positions against the teacher base's; once a step.

        The mask, on the CPU, tells which image they belong to.
        """
        raise NotImplementedError

    def embedding_loss(self, embedding_BD: Tensor) -> Tensor | None:
        """For a method that has such a term on top of its `loss`: a scalar, of the student base's embeddings of one global view, in float32."""
        del embedding_BD
        return None

    def begin_step(self, epoch: float, epochs: int) -> None:
        """Called before every step with the (fractional) epochs trained so far, out of `epochs`."""
        del epoch, epochs

    def targets(self, teacher_outputs: Sequence[Tensor]) -> list[Tensor]:
        """Turn the teacher's projections (BD, one per view) into what students are compared with; called once a step."""
        return list(teacher_outputs)

    @abstractmethod
    def loss(self, student_BD: Tensor, target_BD: Tensor) -> Tensor:
        """ℓ(student, target): the scalar loss of one view's student output against another view's target, in float32."""

    def after_backward(self, projectors: Iterable[nn.Module], epoch: float) -> None:
        """Called between the backward pass and the optimiser's step, with the student's projectors, that of positions included."""
        del projectors, epoch


class ProjectedMethod(Method):
    """A method whose layers are sized by its options or, where these leave it open, by the base."""

    paper_sizes: ClassVar[tuple[int, int]]
    """Of the hidden layers and of the output; a small base gets smaller ones."""
    projection: ClassVar[Callable[[int, int, int], nn.Module]]
    """Makes a projector from the sizes of its input, hidden layers and output."""
    prediction: ClassVar[Callable[[int, int, int], nn.Module] | None] = None
    """Makes a predictor likewise; None where the method has none."""

    def __init__(self, width: int, options: ProjectedOptions) -> None:
        """`width` is the base's."""
        super().__init__()
        hidden, output = self.paper_sizes
        self.hidden_dim = scaled_size(options.hidden_dim, width, factor=4, paper=hidden)
        self.output_dim = scaled_size(options.output_dim, width, factor=4, paper=output)

    def projector(self, in_dim: int) -> nn.Module:
        return type(self).projection(in_dim, self.hidden_dim, self.output_dim)

    def predictor(self) -> nn.Module | None:
        prediction = type(self).prediction
        sizes = self.output_dim, self.hidden_dim, self.output_dim
        return None if prediction is None else prediction(*sizes)
