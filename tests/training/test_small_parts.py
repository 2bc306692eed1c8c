"""Seeds, devices, precision, augmentation and the metrics file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from headsearch.data.recipe import default_augmentation
from headsearch.errors import ExperimentError
from headsearch.experiment import DataSpec
from headsearch.training.augmentation import build_augmentation
from headsearch.training.devices import autocast_dtype, resolve_device
from headsearch.training.metrics import MetricsLog
from headsearch.training.seeds import derived_generator, derived_seed


def test_derived_seeds_depend_on_seed_and_name_and_nothing_else() -> None:
    seeds = {derived_seed(seed, *name) for seed in range(3) for name in (("a",), ("b",), ("a", 1), ("a1",))}
    assert len(seeds) == 12
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derived_seed(1, "views", 5) == derived_seed(1, "views", 5)
    draws = [torch.rand(3, generator=derived_generator(1, "a")) for _ in range(2)]
    assert torch.equal(*draws)


def test_auto_is_the_accelerator_where_there_is_one() -> None:
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert autocast_dtype("auto", torch.device("cpu")) is None
    assert autocast_dtype("bfloat16", torch.device("cpu")) is torch.bfloat16
    assert autocast_dtype("float32", torch.device("cuda")) is None


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "mps", ""])
def test_a_device_that_is_not_here_is_a_mistake_of_the_experiment(name: str) -> None:
    with pytest.raises(ExperimentError, match=r"^proxy\.device: "):
        resolve_device(name)


def test_an_experiment_changes_the_default_augmentation() -> None:
    default = default_augmentation("digits", 16)
    changed = build_augmentation(
        DataSpec(dataset="digits", image_size=16, augmentation={"scale": [0.5, 1.0]})
    )
    assert changed.scale == (0.5, 1.0)
    assert changed.flip == default.flip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"flp": 0.5}, "data.augmentation: unknown key 'flp'; did you mean 'flip'?"),
        ({"flip": 2}, "data.augmentation: augmentation flip: got 2.0, expected a probability, 0 to 1"),
        ({"scale": "all"}, "data.augmentation.scale: "),
    ],
)
def test_a_wrong_augmentation_is_told_in_one_line(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ExperimentError) as error:
        build_augmentation(DataSpec(dataset="digits", image_size=16, augmentation=changes))
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_metrics_after_the_checkpoint_are_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    log.append("epoch", {"epoch": 1})
    size = log.size
    log.append("epoch", {"epoch": 2})
    MetricsLog(path, size).append("rung", {"epoch": 1})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"kind": "epoch", "epoch": 1},
        {"kind": "rung", "epoch": 1},
    ]
