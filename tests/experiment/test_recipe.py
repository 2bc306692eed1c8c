"""One recipe a method, whoever trains: proxies, screens and pretrainings; what is given wins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headsearch.errors import ExperimentError
from headsearch.experiment import load_experiment
from headsearch.methods import METHODS
from headsearch.pretrain import PretrainSpec
from headsearch.shipped import shipped_folder

RATES = ("learning_rate", "weight_decay", "weight_decay_end", "teacher_momentum", "clip_gradient")


def proxy(*overrides: str) -> dict[str, Any]:
    return load_experiment(None, overrides).proxy.model_dump()


def recipe(**content: Any) -> dict[str, Any]:
    return PretrainSpec.parse(content, "pretrain").recipe.model_dump()


@pytest.mark.parametrize("name", METHODS)
def test_proxies_and_pretrainings_have_the_same_recipe(name: str) -> None:
    searched = proxy(f"method.name={name}", "proxy.batch_size=512", "proxy.epochs=20")
    pretrained = recipe(method={"name": name}, recipe={"batch_size": 512, "epochs": 20})
    shared = searched.keys() & pretrained.keys()
    assert {*RATES, "warmup_epochs", "precision", "device"} <= shared
    assert {key: searched[key] for key in shared - {"keep_checkpoints"}} == {
        key: pretrained[key] for key in shared - {"keep_checkpoints"}
    }
    assert searched["learning_rate"] == pytest.approx(2 * METHODS[name].recipe.learning_rate)


def test_the_numbers_are_those_of_the_papers() -> None:
    wanted = {
        "mocov3": (1.5e-4, 0.1, 0.1, 0.99, 0.0),
        "byol": (1.5e-4, 0.1, 0.1, 0.996, 0.0),
        "simclr": (1.5e-4, 0.1, 0.1, 0.99, 0.0),
        "vicreg": (1.5e-4, 0.1, 0.1, 0.99, 0.0),
        "barlow": (1.5e-4, 0.1, 0.1, 0.99, 0.0),
        "dino": (5e-4, 0.04, 0.4, 0.996, 3.0),
        "dinov2": (1e-4, 0.04, 0.2, 0.994, 3.0),
        "ibot": (5e-4, 0.04, 0.4, 0.996, 3.0),
        "mae": (1.5e-4, 0.05, 0.05, 0.999, 0.0),
        "ijepa": (1.25e-4, 0.04, 0.4, 0.996, 0.0),
        "simmim": (1e-4, 0.05, 0.05, 0.999, 5.0),
    }
    for name in METHODS:
        found = proxy(f"method.name={name}", "proxy.batch_size=256")
        assert tuple(found[key] for key in RATES) == pytest.approx(wanted[name])


def test_what_is_given_wins_and_null_is_the_methods() -> None:
    given = proxy("method.name=dino", "proxy.learning_rate=0.5", "proxy.teacher_momentum=null")
    assert given["learning_rate"] == 0.5
    assert given["teacher_momentum"] == 0.996
    decay = proxy("method.name=dino", "proxy.weight_decay=0.2")
    assert (decay["weight_decay"], decay["weight_decay_end"]) == (0.2, 0.2)
    assert proxy("proxy.learning_rate=null") == proxy()


@pytest.mark.parametrize("value", [0, None])
def test_0_and_null_both_mean_that_the_gradient_is_not_clipped(value: float | None) -> None:
    text = "null" if value is None else str(value)
    assert not proxy("method.name=dino", f"proxy.clip_gradient={text}")["clip_gradient"]
    assert not recipe(method={"name": "dino"}, recipe={"clip_gradient": value})["clip_gradient"]


def test_shipped_experiments_on_small_images_keep_their_tuned_rates() -> None:
    for name in ("digits", "digits_proxies", "demo", "cifar10", "knobs"):
        file = shipped_folder("experiments") / f"{name}.yaml"
        found = load_experiment(file).proxy.model_dump()
        assert [found[key] for key in RATES] == [1e-3, 0.05, 0.05, 0.99, 3.0]


@pytest.mark.parametrize(
    "override",
    [
        "method.name=3",
        "method.name=[a]",
        "method=3",
        "method.kwargs=1",
        "method.name=moco",
        "method.kwargs.colour=red",
        "proxy=3",
        "proxy.batch_size=many",
        "proxy.epochs=[1]",
        "proxy.warmup_epochs=31",
    ],
)
def test_what_is_of_the_wrong_kind_is_told_in_one_line(override: str) -> None:
    with pytest.raises(ExperimentError) as caught:
        load_experiment(None, [override])
    told = str(caught.value)
    assert (
        override.partition("=")[0].split(".")[1 if "." in override else 0].replace("colour", "kwargs") in told
    )
    assert "\n" not in told


def test_an_experiment_of_a_former_version_is_trained_as_it_was(tmp_path: Path) -> None:
    """Run directories hold every value of then; the decay did not change along the schedule."""
    file = tmp_path / "experiment.yaml"
    file.write_text(
        "method: {name: dino}\nproxy: {learning_rate: 0.001, weight_decay: 0.05, teacher_momentum: 0.99, clip_gradient: null}\n"
    )
    found = load_experiment(file).proxy.model_dump()
    assert [found[key] for key in RATES] == [1e-3, 0.05, 0.05, 0.99, None]
