"""A method that nobody knew before: one file, and every command can use it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from headsearch.errors import ExperimentError
from headsearch.experiment import load_experiment
from headsearch.heads.registry import parse_head
from headsearch.methods import check_method
from headsearch.plugins import load_plugins
from headsearch.pretrain import PretrainSpec, pretrain
from headsearch.testing.pretraining import small_spec
from headsearch.testing.tiny import Context, tiny_experiment, training, write_two_colours
from headsearch.training.evaluator import Evaluator

TOY = """
from __future__ import annotations
from functools import cache
from headsearch.methods.options import MethodEntry, MethodOptions, MethodRecipe


class ToyOptions(MethodOptions):
    power: int = 2


@cache
def define():
    import torch
    from headsearch.methods.method import Method

    class Toy(Method):
        def __init__(self, width, options):
            super().__init__()
            self.power = options.power

        def projector(self, in_dim):
            return torch.nn.Linear(in_dim, 8)

        def loss(self, student_BD, target_BD):
            return ((student_BD - target_BD).abs() ** self.power).mean()

    return Toy


PLUGINS = [MethodEntry(
    "toy",
    ToyOptions,
    MethodRecipe(learning_rate=7e-4, weight_decay=0.0, weight_decay_end=0.1, teacher_momentum=0.9, clip_gradient=1.0),
    define,
)]
"""


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    file = tmp_path / "toy_method.py"
    file.write_text(TOY)
    load_plugins([str(file)])
    return write_two_colours(tmp_path / "images.npz")


def test_its_options_and_recipe_are_known(toy: Path) -> None:
    assert check_method("toy", {"power": 3}).power == 3
    with pytest.raises(ExperimentError, match="toy has no option 'powr'; did you mean 'power'"):
        load_experiment(None, ["method.name=toy", "method.kwargs={powr: 3}"])
    schedule = load_experiment(None, ["method.name=toy", "proxy.batch_size=128"]).proxy
    assert (schedule.learning_rate, schedule.weight_decay_end) == (3.5e-4, 0.1)
    assert PretrainSpec.parse({"method": {"name": "toy"}, "recipe": {}}, "").recipe.learning_rate == 2.8e-3


def test_it_is_trained_in_proxies_screens_and_pretrainings(toy: Path, tmp_path: Path) -> None:
    heads = [
        parse_head(head) for head in ({"convnext": {"depth": 1, "kernel_size": 3}}, {"mixer": {"depth": 1}})
    ]
    evaluator = Evaluator(tiny_experiment(toy, method={"name": "toy"}))
    alone = evaluator(training(tmp_path / "proxy", heads[0]), Context())
    assert [len(trial.rungs) for trial in alone.trials] == [2]
    screened = evaluator(training(tmp_path / "screen", *heads, stage="screen"), Context())
    assert len(screened.trials) == 2
    assert pretrain(small_spec(toy, method="toy"), tmp_path / "out").weights.is_file()


def test_the_table_is_read_without_torch() -> None:
    code = "import sys, headsearch.methods, headsearch.experiment; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
