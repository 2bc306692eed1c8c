"""From a name on the command line to a base with those weights, and the normalisation that they expect. Finding weights needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headsearch.data.names import channel_count
from headsearch.document import shorten
from headsearch.errors import BaseModelError
from headsearch.evaluation.spec import EvaluationSpec
from headsearch.files import check_weights
from headsearch.plugins import is_factory
from headsearch.pretrain import PretrainSpec

if TYPE_CHECKING:
    from headsearch.base.model import Base

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and deviation of the channels, on a scale of 0 to 1."""


@dataclass(frozen=True)
class Weights:
    """One set of weights to be evaluated."""

    name: str
    """As given: `random`, `pretrained`, a file, or a pretraining directory."""
    source: str | None
    """As `load_base` takes it."""
    pretraining: PretrainSpec | None = None
    """How they were made, where a pretraining directory says so."""


def find_weights(name: str) -> Weights:
    """The weights that a name stands for.

    Raises:
        BaseModelError: there are none, or two.
        RunError: the directory's `pretrain.yaml` cannot be read.
    """
    path = Path(name)
    try:
        is_there, is_folder = path.exists(), path.is_dir()
    except OSError as error:
        raise BaseModelError(f"weights: '{name}' cannot be read: {error.strerror or error}") from None
    if name in ("random", "pretrained"):
        if is_there:
            raise BaseModelError(
                f"weights: '{name}' has a meaning of its own and lies here as well; expected ./{name} for what lies here, or another name for it"
            )
        return Weights(name, None if name == "random" else "pretrained")
    if is_folder:
        file = path / "base.safetensors"
        if not file.is_file() or not (path / "pretrain.yaml").is_file():
            within = ", ".join(sorted(str(each.parent) for each in path.glob("*/base.safetensors")))
            expected = f"; expected one of: {shorten(within, 200)}" if within else ""
            raise BaseModelError(
                f"weights: '{name}' is not a finished pretraining (no base.safetensors and pretrain.yaml in it){expected}"
            )
        return Weights(name, str(file), PretrainSpec.read(path / "pretrain.yaml"))
    if not is_there:
        raise BaseModelError(
            f"weights: no file or directory '{name}' (expected random, pretrained, a file of weights, or a pretraining directory)"
        )
    if path.suffix in (".yaml", ".yml"):
        raise BaseModelError(
            f"weights: '{name}' is a description, which has no weights; headsearch pretrain makes some"
        )
    check_weights(name)
    return Weights(name, name)


def load_weights(weights: Weights, spec: EvaluationSpec) -> Base:
    """A base with the weights in it; random ones are drawn from the spec's seed. Raises `BaseModelError` where they do not fit.

    The spec has nothing left open.
    """
    import torch

    from headsearch.base.model import load_base
    from headsearch.training.seeds import derived_seed

    assert spec.base.model is not None
    assert spec.data.image_size is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(spec.seed, "base"))
        return load_base(
            spec.base.module or spec.base.model,
            image_size=spec.data.image_size,
            channels=channel_count(spec.data.channels or "rgb"),
            kwargs=spec.base.kwargs,
            weights=weights.source,
        )


def own_normalisation(weights: Weights, model: str) -> Normalisation | None:
    """The normalisation that timm's weights were trained with; None for others, which take the data's own. Raises `BaseModelError`."""
    from headsearch.base.timm_models import configuration

    config = configuration(model) if weights.source == "pretrained" else None
    if config is None:
        return None
    return tuple(config.mean), tuple(config.std)


def own_image_size(model: str, kwargs: Mapping[str, Any]) -> int:
    """The image size that a model is made for; 224 where timm does not know. Raises `BaseModelError`."""
    asked = kwargs.get("img_size")
    size = asked[-1] if isinstance(asked, list | tuple) and asked else asked
    if isinstance(size, int):
        return size

    if is_factory(model):
        raise BaseModelError(f"--image-size: which? {model} does not tell")
    from headsearch.base.timm_models import configuration

    config = configuration(model)
    return 224 if config is None else int(config.input_size[-1])
