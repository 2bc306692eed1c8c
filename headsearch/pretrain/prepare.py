"""Everything that a pretraining needs before its first step, and every complaint about what it was given."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headsearch.base.info import BaseInfo
from headsearch.base.model import Base
from headsearch.cores import cores
from headsearch.data.augment import Views
from headsearch.data.sets import Dataset, ImageSet, StreamedImages
from headsearch.errors import ExperimentError, HeadError, RunError
from headsearch.experiment import SearchSpec
from headsearch.experiment.sections import TOUCHES_NO_SCORE
from headsearch.files import differences, whole_folder, write_atomically, writing
from headsearch.heads.canonical import canonical, head_id
from headsearch.heads.config import HeadConfig
from headsearch.heads.registry import family, parse_head
from headsearch.methods.collectives import world_size
from headsearch.pretrain.recipe import PretrainSpec
from headsearch.runs.directory import RunDirectory, refuse_changes
from headsearch.training.materials import build_pair, check_local_crops, new_base, read_images
from headsearch.training.ranks import Place
from headsearch.training.scorer import Scorer
from headsearch.training.trainer import Trainer

SPEC_FILE = "pretrain.yaml"
_MAY_CHANGE = {
    "recipe": ("compile", "device", "checkpoint_minutes", "keep_checkpoints", "probe_every", "export"),
    "data": ("root", *TOUCHES_NO_SCORE),
}
"""Keys that touch no weight, or only say where the same images lie: another value may go on from a checkpoint."""


@dataclass(frozen=True)
class Setup:
    """What is trained, on what, and how it is looked at."""

    trainer: Trainer
    images: ImageSet
    """To train on."""
    views: Views
    scorer: Scorer
    dataset: Dataset


def prepare(spec: PretrainSpec, place: Place) -> Setup:
    """Build the pair, the same on every rank, and read the images.

    Raises:
        UserError: ranks that do not divide the batch; a base that is not the one that the head was chosen for; whatever is wrong
            with base, head, method, augmentation or data.
    """
    recipe = spec.recipe
    if recipe.batch_size % (world_size() * recipe.accumulate):
        raise ExperimentError(
            f"recipe.batch_size ({recipe.batch_size}) must divide by ranks times recipe.accumulate "
            f"({world_size()} x {recipe.accumulate})"
        )
    config = parse_head(spec.head)
    base = new_base(spec.base, spec.data)
    expected = base.info if spec.chosen_for is None else spec.chosen_for.base_info()
    named = head_id(canonical(config, expected))
    if named != spec.head_id:
        raise HeadError(f"the head's config describes {named} on its base, but head_id says {spec.head_id}")
    _check_fit(config, expected, base.info)
    config = canonical(config, base.info)
    dataset, views = read_images(spec.data, base, batch_size=recipe.batch_size, seed=spec.seed)
    pair = build_pair(lambda: _again(base, spec), config.heads, spec.method, spec.seed)
    check_local_crops(views, pair)
    trainer = Trainer(
        pair, recipe, steps_per_epoch=len(dataset.train) // recipe.batch_size, device=place.device
    )
    scorer = Scorer(
        dataset,
        views,
        discrepancy=SearchSpec().discrepancy,
        labels=spec.data.labels == "probe",
        seed=spec.seed,
    )
    images = dataset.train
    if isinstance(images, StreamedImages):
        images = replace(images, workers=max(cores() // place.local_ranks - 1, 0))
    return Setup(trainer, images, views, scorer, dataset)


def identity(spec: PretrainSpec) -> str:
    """Whatever decides the course of a pretraining, as a hash."""
    return hashlib.sha256(json.dumps(_deciding(spec), sort_keys=True).encode()).hexdigest()


def check_folder(out: Path, spec: PretrainSpec, *, resume: bool) -> None:
    """Check that `out` may be written, or gone on with.

    Raises:
        RunError: it exists without `resume`; it is none of a pretraining, or of another one, naming what differs.
    """
    if not resume:
        RunDirectory.refuse_existing(out)
        return
    if not (out / SPEC_FILE).is_file():
        raise RunError(f"{out}: nothing to resume, there is no {SPEC_FILE} in it")
    refuse_changes(out, differences(_deciding(PretrainSpec.read(out / SPEC_FILE)), _deciding(spec)))


def open_folder(out: Path, spec: PretrainSpec) -> None:
    """Make the folder where there is none, and write the spec into it. Raises `RunError`."""
    with writing(out):
        if (out / SPEC_FILE).exists():
            write_atomically(out / SPEC_FILE, spec.to_yaml())
            return
        with whole_folder(out) as whole:
            write_atomically(whole / SPEC_FILE, spec.to_yaml())


def _again(base: Base, spec: PretrainSpec) -> Base:
    """The base that was checked, where it came with weights; a new one where weights are drawn, from their own stream."""
    return base if spec.base.weights is not None else new_base(spec.base, spec.data)


def _deciding(spec: PretrainSpec) -> Mapping[str, Any]:
    content = spec.model_dump(mode="json")
    # Told by what is in them, wherever they lie.
    content.pop("plugins", None)
    content["base"].pop("module", None)
    for section, keys in _MAY_CHANGE.items():
        content[section] = {key: value for key, value in content[section].items() if key not in keys}
    return content


def _check_fit(head: HeadConfig, expected: BaseInfo, found: BaseInfo) -> None:
    """Check that a base is one that the head can be trained on: of the model, feature map and width that it was chosen for, and of its grid where it is
    tied to one."""
    bound = any(family(stage.family).grid_bound for single in head.heads for stage in single)
    for key in ("model", "stage", "width", *(["grid"] if bound else [])):
        was, now = getattr(expected, key), getattr(found, key)
        if was != now:
            raise HeadError(
                f"the head was chosen for a base whose {key} is {was}, but the base at hand ({found.model} at "
                f"{found.image_size} pixels) has {now}; was head.yaml edited, or a key of base or data overridden?"
            )
