"""How differently the bases of two seeds of one training represent the same images: the discrepancy when only chance differs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from headsearch.errors import RunError
from headsearch.scoring.discrepancy import KINDS

_KEY = "base_embedding"


def kept_embeddings(base_embedding_ND: Tensor) -> dict[str, Tensor]:
    """The content of the file that a trial without a head keeps: embeddings (N, D) of held-out images, which are the same for all seeds."""
    return {_KEY: base_embedding_ND.float()}


def compare_bases(
    files: Mapping[int, Path], *, seed: int
) -> Iterator[tuple[tuple[int, int], str, float, float]]:
    """Every measure of every pair of files: their numbers, the measure, its value, and its value with the images of one side shuffled.

    A measure that is undefined is left out. `seed` is of the shuffle.

    Raises:
        RunError: a file cannot be read, or two are not of the same images.
    """
    embeddings = {number: _read(file) for number, file in sorted(files.items())}
    generator = torch.Generator().manual_seed(seed)
    for first, second in combinations(embeddings, 2):
        x_ND, y_ND = embeddings[first], embeddings[second]
        if len(x_ND) != len(y_ND):
            raise RunError(f"{files[second]}: {len(y_ND)} images, expected {len(x_ND)} as in {files[first]}")
        shuffled_ND = y_ND[torch.randperm(len(y_ND), generator=generator)]
        for name, measure in KINDS.items():
            value, unrelated = measure(x_ND, y_ND), measure(x_ND, shuffled_ND)
            if math.isfinite(value) and math.isfinite(unrelated):
                yield (first, second), name, value, unrelated


def _read(file: Path) -> Tensor:
    try:
        embedding_ND = load_file(file)[_KEY]
    except (OSError, SafetensorError, KeyError) as error:
        raise RunError(f"{file}: cannot be read as embeddings: {' '.join(str(error).split())}") from None
    if embedding_ND.ndim != 2 or not torch.isfinite(embedding_ND).all():
        raise RunError(
            f"{file}: expected finite embeddings of shape (images, features), got {tuple(embedding_ND.shape)}"
        )
    return embedding_ND
