"""The augmentation that an experiment asks for: the default of its images with its changes, checked."""

from __future__ import annotations

from dataclasses import asdict

from pydantic import TypeAdapter, ValidationError

from headsearch.data.recipe import Augmentation, check_bands, default_augmentation
from headsearch.errors import ExperimentError, did_you_mean
from headsearch.experiment import DataSpec
from headsearch.options import in_our_words


def build_augmentation(data: DataSpec) -> Augmentation:
    """The recipe for `data`: YAML lists become pairs. Needs no torch.

    Raises:
        ExperimentError: an unknown key (the nearest known one is named), or a value of another type or out of bounds.
    """
    recipe = asdict(default_augmentation(data.dataset, data.image_size, data.channels))
    for name in data.augmentation:
        if name not in recipe:
            raise ExperimentError(f"data.augmentation: unknown key '{name}'{did_you_mean(name, recipe)}")
    try:
        augmentation = TypeAdapter(Augmentation).validate_python({**recipe, **data.augmentation})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(["data.augmentation", *(str(part) for part in first["loc"])])
        raise ExperimentError(f"{key}: {in_our_words(first['msg'])}") from None
    if data.channels != "rgb":
        try:
            check_bands(augmentation)
        except ValueError as error:
            raise ExperimentError(f"data.augmentation: {error}") from None
    return augmentation
