"""The smallest real training: images of two colours, a ViT of one block, and a context that keeps what it is told. For tests with torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from headsearch.errors import TrialStopped
from headsearch.experiment import Experiment, parse_experiment
from headsearch.heads import Candidate, HeadConfig
from headsearch.training.trial import RungScores, Training, Trial, TrialStage


class Context:
    """A `TrainingContext` that keeps what is reported; `stop_at` is the rung at which the search has seen enough."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at = stop_at
        self.reported: list[RungScores] = []
        self.places: list[int] = []
        """Of the candidates whose scores were reported."""
        self.told: list[tuple[float, int, float, float]] = []
        self.waited: list[str] = []

    def report(self, place: int, scores: RungScores) -> None:
        """Keep the scores; raises `TrialStopped` at the rung `stop_at`."""
        self.places.append(place)
        self.reported.append(scores)
        if scores.epoch == self.stop_at:
            raise TrialStopped

    def progress(self, epoch: float, epochs: int, loss: float, images_per_second: float) -> None:
        """Keep what is told."""
        self.told.append((epoch, epochs, loss, images_per_second))

    def waits(self, why: str) -> None:
        """Keep what is waited for."""
        self.waited.append(why)


def training(workdir: Path, *heads: HeadConfig, seed: int = 0, stage: TrialStage = "proxy") -> Training:
    """A training of these heads in the folder `workdir`, which is made."""
    workdir.mkdir(parents=True, exist_ok=True)
    trials = tuple(Trial(number, Candidate.of(head)) for number, head in enumerate(heads))
    return Training(trials, seed, workdir, stage=stage)


def write_two_colours(path: Path) -> Path:
    """An `.npz` of 96 images of 16×16 pixels of two kinds, reddish or bluish, and 40 to test on."""
    random = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split, count in (("train", 96), ("test", 40)):
        labels = np.arange(count) % 2
        pixels = random.integers(0, 120, size=(count, 16, 16, 3))
        for image, label in zip(pixels, labels, strict=True):
            image[:, :, 2 * label] += 120
        arrays |= {f"{split}_images": pixels.astype(np.uint8), f"{split}_labels": labels}
    np.savez(path, **arrays)
    return path


def tiny_experiment(images: Path, **sections: dict[str, Any]) -> Experiment:
    """Four epochs of a tiny ViT on the images of an `.npz`. `sections` add to, or override, keys of the experiment's sections."""
    defaults: dict[str, dict[str, Any]] = {
        "base": {
            "model": "vit_tiny_patch16_224",
            "kwargs": {"patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2, "drop_path_rate": 0.2},
        },
        "data": {"dataset": "npz", "root": str(images), "image_size": 16},
        # Rates under which 12 steps on 96 images learn something; the methods' own are for long schedules.
        "proxy": {
            "epochs": 4,
            "rungs": [2, 4],
            "batch_size": 32,
            "device": "cpu",
            "learning_rate": 1.0e-3,
            "weight_decay": 0.05,
            "teacher_momentum": 0.99,
            "clip_gradient": 3.0,
        },
    }
    if "proxy" in sections:
        del defaults["proxy"]["rungs"]
    return parse_experiment(
        {name: defaults.get(name, {}) | sections.get(name, {}) for name in {*defaults, *sections}}
    )
