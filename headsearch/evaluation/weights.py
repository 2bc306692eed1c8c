"""Which weights: a name on the command line becomes a base with those weights in it, and its normalisation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch

from headsearch.base import Base, load_base
from headsearch.errors import BaseModelError
from headsearch.evaluation.pretraining import PretrainedBase, read_pretraining
from headsearch.evaluation.spec import EvaluationSpec
from headsearch.training.seeds import derived_seed

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Weights:
    """One set of weights to be evaluated."""

    name: str
    """As given: `random`, `pretrained`, a file, or a pretraining directory."""
    source: str | None
    """As `load_base` takes it."""
    pretraining: PretrainedBase | None = None


def find_weights(name: str) -> Weights:
    """The weights that a name stands for. Raises `BaseModelError` where there are none."""
    if name == "random":
        return Weights(name, None)
    if name == "pretrained":
        return Weights(name, "pretrained")
    path = Path(name)
    if path.is_dir():
        found = read_pretraining(path)
        return Weights(name, str(found.weights), found)
    if not path.is_file():
        raise BaseModelError(
            f"weights: no file or directory '{name}' (expected random, pretrained, a file of weights, or a pretraining directory)"
        )
    return Weights(name, name)


def load_weights(weights: Weights, spec: EvaluationSpec, image_size: int) -> Base:
    """A base with the weights in it. Random ones are drawn from `spec.seed`. Raises `BaseModelError` where they do not fit."""
    assert spec.base.model is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(spec.seed, "base"))
        return load_base(
            spec.base.model, image_size=image_size, kwargs=spec.base.kwargs, weights=weights.source
        )


def normalisation(weights: Weights, model: str) -> tuple[Triple, Triple] | None:
    """Mean and deviation of the channels that the weights were trained with; None where nobody knows, and the data's own are as good."""
    if weights.pretraining is not None:
        return weights.pretraining.normalisation
    if weights.source != "pretrained":
        return None
    config = timm.get_pretrained_cfg(model)
    return (tuple(config.mean), tuple(config.std))


def own_image_size(model: str, kwargs: dict[str, Any]) -> int:
    """The image size that a model is made for."""
    asked = kwargs.get("img_size")
    if asked is not None:
        return int(asked if isinstance(asked, int) else asked[-1])
    config = timm.get_pretrained_cfg(model, allow_unregistered=True) if timm.is_model(model) else None
    return 224 if config is None else int(config.input_size[-1])
