"""What is evaluated and how: the options of `headsearch evaluate`, each with a default. No torch here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from headsearch.errors import ExperimentError
from headsearch.experiment.loading import apply_override
from headsearch.experiment.schema_errors import checked
from headsearch.experiment.sections import (
    Cache,
    Channels,
    FilePath,
    Module,
    Positive,
    Section,
    named_by_its_module,
)

ProbeName = Literal[
    "knn", "linear", "few-shot", "finetune", "retrieval", "label-free", "segmentation", "detection"
]

Share = Annotated[float, Field(gt=0, le=1)]
Above = Annotated[float, Field(gt=0)]


class EvaluatedBase(Section):
    """The timm model that all weights are loaded into."""

    model: str | None = None
    """timm's name; null: the one that a pretraining directory among the weights names."""
    module: Module = None
    """A factory instead, as in an experiment."""
    kwargs: dict[str, Any] = Field(default_factory=dict)
    """Passed to `timm.create_model`, or to the factory."""

    @model_validator(mode="before")
    @classmethod
    def _is_named_by_its_module(cls, data: Any) -> Any:
        return named_by_its_module(data)


class EvaluatedData(Section):
    """The labelled images."""

    dataset: str | None = None
    """`digits`, `folder`, `npz`, `webdataset`, or one of timm's names; null: those of a pretraining directory among the weights."""
    root: FilePath | None = None
    image_size: Positive | None = None
    """Side of the square image that the base sees, in pixels; null: the base's own."""
    channels: Annotated[Channels | None, Field(exclude_if=lambda channels: channels is None)] = None
    """`rgb`, or the number of bands; null: those of a pretraining directory among the weights, or else `rgb`."""
    unreadable: Literal["refuse", "accept"] = "refuse"
    """Where a fifth of the files or more cannot be read: `refuse` ends with an error, `accept` goes on without them."""
    cache: Cache = None
    """Where decoded images are kept: a folder, or `auto`. If not given: as in a pretraining directory among the weights."""


class KnnSpec(Section):
    neighbours: Annotated[list[Positive], Field(min_length=1)] = Field(default_factory=lambda: [20])
    """One row for each k."""
    temperature: Above = 0.07


class FewShotSpec(Section):
    fractions: Annotated[list[Share], Field(min_length=1)] = Field(default_factory=lambda: [0.01, 0.1])
    """Shares of the training images whose labels are used; of every class its share, and one image at least."""
    penalty: Above = 0.01
    """L2, on the mean loss. Fixed: so few labels leave nothing to choose it on."""


class FinetuneSpec(Section):
    epochs: Positive = 10
    batch_size: Positive = 64
    """Images per step, each in two random crops."""
    learning_rate: Above = 2.0e-3
    """Peak, of the new classifier; layers below it learn more slowly, see `layer_decay`."""
    layer_decay: Share = 0.75
    """The learning rate of a layer over that of the next (BEiT, arXiv 2106.08254)."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    warmup_epochs: Annotated[float, Field(ge=0)] = 1.0


class SegmentationSpec(Section):
    dataset: Literal["digits", "folder"] | None = None
    """`digits`: made of the embedded digits; `folder`: `images` and `masks` below `root`; null: as `data.dataset`."""
    root: FilePath | None = None
    """null: `data.root`."""
    epochs: Positive = 20
    batch_size: Positive = 32
    learning_rate: Above = 1.0e-2
    train_images: Positive = 10_000
    """At most so many; of a larger set, a fixed random part."""


class DetectionSpec(Section):
    steps: Positive = 3
    """Training steps of the check, on one batch."""


def _listed(probes: Any) -> Any:
    """What a text with commas lists."""
    if isinstance(probes, str):
        return [part.strip() for part in probes.split(",") if part.strip()]
    return list(probes) if isinstance(probes, tuple) else probes


def _default_probes() -> list[ProbeName]:
    return ["knn", "linear", "few-shot"]


class EvaluationSpec(Section):
    """Everything that decides the outcome of an evaluation, but for the weights."""

    base: EvaluatedBase = Field(default_factory=EvaluatedBase)
    data: EvaluatedData = Field(default_factory=EvaluatedData)
    probes: Annotated[list[ProbeName], Field(min_length=1), BeforeValidator(_listed)] = Field(
        default_factory=_default_probes
    )
    """Also as a text with commas. If none are chosen and the images have no labels: `retrieval` alone."""
    seeds: Positive = 5
    """Repetitions of what is random: few-shot subsets, the linear probe's split, fine-tuning."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Of the cut of held-out images where there is no test split, of random weights, and of whatever is drawn; where it is not given,
    that of the first pretraining directory among the weights."""
    batch_size: Positive = 256
    """Images at a time through the frozen base."""
    device: str = "auto"
    knn: KnnSpec = Field(default_factory=KnnSpec)
    few_shot: FewShotSpec = Field(default_factory=FewShotSpec)
    finetune: FinetuneSpec = Field(default_factory=FinetuneSpec)
    segmentation: SegmentationSpec = Field(default_factory=SegmentationSpec)
    detection: DetectionSpec = Field(default_factory=DetectionSpec)


def evaluation_spec(options: Mapping[str, Any], overrides: Sequence[str] = ()) -> EvaluationSpec:
    """Check `options` (nested, plain data) with `key=value` overrides on top.

    Raises:
        ExperimentError: one line that names the key and the nearest known one.
    """
    data: dict[str, Any] = json.loads(json.dumps(dict(options)))
    for override in overrides:
        apply_override(data, override)
    return checked(EvaluationSpec, data, "evaluation", ExperimentError, overrides=overrides)
