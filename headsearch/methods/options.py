"""What every method declares about itself without torch, so that an experiment is checked in milliseconds: options and recipe.

A size of None is derived from the base's width w, because the papers' projectors dwarf a small base: hidden layers 4·w,
outputs 4·w, prototypes 16·w, each at most the paper's own size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from headsearch.options import Options
from headsearch.registry import Entry

if TYPE_CHECKING:
    from headsearch.methods.method import Method

Size = Annotated[int, Field(ge=2)]
Temperature = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class MethodOptions(Options):
    """The options of a method."""


class ProjectedOptions(MethodOptions):
    """What all methods with projectors let one choose."""

    hidden_dim: Size | None = None
    """Width of the hidden layers of projectors and predictors; null: 4·w, at most the paper's."""
    output_dim: Size | None = None
    """Features that the loss compares; null: 4·w (dino: 16·w prototypes), at most the paper's."""


class DecoderOptions(MethodOptions):
    """What the methods with a decoder let one choose."""

    decoder_dim: Annotated[int, Field(ge=4, multiple_of=4)] | None = None
    """Width of the decoder; null: a part of w, at most the paper's."""
    decoder_depth: Annotated[int, Field(ge=1)] | None = None
    """Its blocks; null: a part of the base's blocks, at most the paper's."""


@dataclass(frozen=True)
class MethodRecipe:
    """How a method is trained where an experiment or a pretraining leaves it open, with AdamW."""

    learning_rate: float
    """Peak for a batch of 256 images; scaled in proportion to the batch."""
    weight_decay: float
    """At the start."""
    weight_decay_end: float
    """At the end, along a cosine."""
    teacher_momentum: float
    """At the start; rises to 1 along a cosine."""
    clip_gradient: float
    """Largest global norm; 0: not clipped."""


@dataclass(frozen=True)
class MethodEntry(Entry):
    """A method as the registry knows it."""

    options: type[MethodOptions]
    recipe: MethodRecipe
    define: Callable[[], Callable[[int, Any], Method]]
    """Imports torch, and gives the module's class, which is built from the base's width (channels) and the options."""
