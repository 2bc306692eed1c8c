"""Bases that are not timm's: whatever module a factory of the user's makes, where it has the one method that is asked for here.

    def map_and_embedding(self, images):       # (B, channels, size, size), normalised
        return map, embedding                  # (B, width, H, W), before the last norm, and (B, D)

The module is otherwise left as it is: its state is what pretraining improves, and it loads strictly into what the factory makes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from headsearch.errors import BaseModelError
from headsearch.plugins import load_factory, short_name


@runtime_checkable
class OwnBase(Protocol):
    """What a module must have to be a base."""

    def map_and_embedding(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """The last feature map, (B, width, H, W) before the final norm and without class tokens, and the embedding, (B, D)."""


def create_own(reference: str, kwargs: Mapping[str, Any]) -> nn.Module:
    """What the factory `file.py:name` or `package.module:name` makes of `kwargs`.

    Raises `PluginError` where there is none, and `BaseModelError` where it raises or makes something else.
    """
    factory, name = load_factory(reference), short_name(reference)
    try:
        made = factory(**kwargs)
    except Exception as error:
        given = ", ".join(f"{key}={value!r}" for key, value in kwargs.items())
        raise BaseModelError(
            f"{name}({given}) raises {type(error).__name__}: {' '.join(str(error).split())}"
        ) from error
    if not isinstance(made, nn.Module) or not isinstance(made, OwnBase):
        raise BaseModelError(
            f"{name} makes a {type(made).__name__}; expected an nn.Module with a method map_and_embedding(images) that gives "
            "a map (B,C,H,W) and an embedding (B,D)"
        )
    return made


def own_channels(made: nn.Module) -> int:
    """How many channels the images of a module have: those of its first convolution, or 3 where it has none."""
    return next((part.in_channels for part in made.modules() if isinstance(part, nn.Conv2d)), 3)


def own_output(made: OwnBase, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Its map and embedding. Raises `TypeError` where it gives something else."""
    given: object = made.map_and_embedding(images_BCHW)
    if not isinstance(given, tuple | list) or [isinstance(part, Tensor) for part in given] != [True, True]:
        raise TypeError(f"map_and_embedding gives {type(given).__name__}; expected a map and an embedding")
    map_BCHW, embedding_BD = given
    return map_BCHW, embedding_BD
