"""Trainings that branch from a trunk, with real tiny models: what they begin with, and that a file serves as well as a trunk trained first."""

from __future__ import annotations

import contextlib
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file

from headsearch.errors import ExperimentError
from headsearch.experiment import Experiment
from headsearch.heads.config import HeadConfig
from headsearch.heads.registry import parse_head
from headsearch.results.records import TrialRecord
from headsearch.search.executors import InlineExecutor
from headsearch.search.session import run_search
from headsearch.testing.tiny import Context, tiny_experiment, training
from headsearch.testing.toy_search import scores
from headsearch.training.checkpoint import save_tensors
from headsearch.training.evaluator import Evaluator
from headsearch.training.trial import BEGINNING, TRUNK

CONVNEXT = parse_head({"convnext": {"depth": 1, "kernel_size": 3}})
MIXER = parse_head({"mixer": {"depth": 1}})
SET = parse_head({"set": [{"convnext": {"depth": 1, "kernel_size": 3}}, {"mixer": {"depth": 1}}]})


def from_trunk(images: Path, trunk: object, **sections: dict[str, Any]) -> Experiment:
    return tiny_experiment(images, proxy={"epochs": 2, "rungs": [1, 2], "trunk": trunk}, **sections)


def trained(images: Path, workdir: Path, epochs: int = 3) -> Path:
    """A trunk of seed 7; its file."""
    workdir.mkdir()
    wanted = training(workdir, HeadConfig(), seed=7, stage="trunk")
    Evaluator(from_trunk(images, {"epochs": epochs}))(wanted, Context())
    return workdir / TRUNK


def test_a_trunk_is_a_training_without_a_head_and_plain_timm_loads_it(images: Path, tmp_path: Path) -> None:
    trunk = load_file(trained(images, tmp_path / "trunk"))
    alone = tiny_experiment(images, proxy={"epochs": 3, "rungs": [3]})
    (tmp_path / "alone").mkdir()
    run = Evaluator(alone).start(training(tmp_path / "alone", HeadConfig(), seed=7), Context())
    run.run()
    model = timm.create_model(alone.base.model, img_size=16, num_classes=0, **alone.base.kwargs)
    model.load_state_dict(trunk)
    for name, weight in run.trainer.hssl.student.base.model.state_dict().items():
        assert torch.equal(weight, trunk[name]), name


@pytest.mark.parametrize("stage", ["proxy", "screen"])
@pytest.mark.parametrize("trunk", ["trained", "given"])
def test_student_and_teacher_begin_with_the_trunk(
    images: Path, tmp_path: Path, stage: str, trunk: str
) -> None:
    file = trained(images, tmp_path / "trunk")
    workdir = tmp_path / "branch"
    workdir.mkdir()
    if trunk == "trained":
        shutil.copy(file, workdir / BEGINNING)
    heads = [CONVNEXT, MIXER] if stage == "screen" else [SET]
    experiment = from_trunk(images, {"epochs": 3} if trunk == "trained" else str(file))
    run = Evaluator(experiment).start(training(workdir, *heads, stage=stage), Context())
    assert run.trainer.recipe.epochs == 2
    for pair in (run.trainer.hssl.student, run.trainer.hssl.teacher):
        for name, weight in load_file(file).items():
            assert torch.equal(pair.base.model.state_dict()[name], weight), name


def test_an_anchor_begins_as_the_real_pretraining_does_and_is_as_long(images: Path, tmp_path: Path) -> None:
    file = trained(images, tmp_path / "trunk")
    states = []
    for trunk in (None, str(file)):
        wanted = training(tmp_path / f"anchor-{trunk is None}", CONVNEXT, seed=5, stage="anchor")
        run = Evaluator(from_trunk(images, trunk)).start(replace(wanted, epochs=7), Context())
        assert (run.trainer.recipe.epochs, run.trainer.recipe.warmup_epochs) == (7, 0.7)
        assert list(run.rung_epochs) == [7]
        states.append(run.trainer.hssl.student.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_what_is_new_begins_as_without_a_trunk(images: Path, tmp_path: Path) -> None:
    file = trained(images, tmp_path / "trunk")
    states = []
    for trunk in (None, str(file)):
        workdir = tmp_path / f"branch-{trunk is None}"
        workdir.mkdir()
        run = Evaluator(from_trunk(images, trunk)).start(training(workdir, CONVNEXT, seed=5), Context())
        states.append(run.trainer.hssl.student.state_dict())
    for name in states[0]:
        same = torch.equal(states[0][name], states[1][name])
        assert same or name.startswith("base."), name
    assert any(not torch.equal(states[0][name], states[1][name]) for name in states[0])


def searched(experiment: Experiment, out: Path, **options: Any) -> list[TrialRecord]:
    return list(run_search(experiment, out, **options).records)


def small_search(images: Path, trunk: object, **search: Any) -> Experiment:
    sizes = {"trials": 2, "finalists": 1, "replicates": 2, "controls": ["none"], "sampler": "grid"}
    wanted = {"strategy": "proxies", "stopping": {"kind": "none"}, "space": "tiny", **sizes, **search}
    return from_trunk(images, trunk, search=wanted)


@pytest.mark.slow
def test_a_search_in_processes_agrees_with_one_inline_and_a_file_with_the_trunk_it_holds(
    images: Path, tmp_path: Path
) -> None:
    inline = searched(small_search(images, {"epochs": 3}), tmp_path / "inline")
    trunks = [record for record in inline if record.stage == "trunk"]
    assert [(r.replicate, r.control, r.rungs[-1].epoch) for r in trunks] == [(0, "none", 3), (1, "none", 3)]
    weights = [load_file(tmp_path / "inline" / "trials" / str(r.number) / TRUNK) for r in trunks]
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0]), (
        "one for both seeds"
    )

    executor = {"kind": "process", "workers": 1}
    processes = searched(small_search(images, {"epochs": 3}, executor=executor), tmp_path / "processes")
    assert without_time(processes) == without_time(inline)

    file = tmp_path / "inline" / "trials" / str(trunks[0].number) / TRUNK
    given = searched(small_search(images, str(file), finalists=0, replicates=1), tmp_path / "given")
    firsts = [record for record in inline if record.stage != "trunk" and record.replicate == 0]
    assert without_time(given) == without_time(firsts)


def without_time(records: list[TrialRecord]) -> dict[tuple[str, str, int], object]:
    return {key: (state, seed, rungs) for key, (state, seed, rungs, _) in scores(records).items()}


def test_a_search_that_is_killed_in_its_trunk_ends_as_an_undisturbed_one(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = small_search(images, {"epochs": 3}, finalists=0, replicates=1)

    class Killing(InlineExecutor):
        def run(self, source: Any, evaluate: Any) -> None:
            # A checkpoint after every step, and death after the fourth of nine.
            evaluate.checkpoint_seconds = 0.0
            told = 0

            def progress(*_: object) -> None:
                nonlocal told
                told += 1
                if told == 4:
                    raise KeyboardInterrupt

            monkeypatch.setattr("headsearch.training.loop._PROGRESS_SECONDS", -1.0)
            monkeypatch.setattr(source, "progress", progress)
            super().run(source, evaluate)

    def killing(*_: object) -> Any:
        return contextlib.nullcontext(Killing())

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["headsearch.search.session"], "open_executor", killing)
        with pytest.raises(KeyboardInterrupt):
            searched(experiment, tmp_path / "run")
    assert not (tmp_path / "run" / "trials" / "0" / TRUNK).exists()
    assert list((tmp_path / "run" / "trials" / "0").glob("checkpoint.*"))
    resumed = searched(experiment, tmp_path / "run", resume=True)
    undisturbed = searched(experiment, tmp_path / "undisturbed")
    assert without_time(resumed) == without_time(undisturbed)
    assert not list((tmp_path / "run").glob("trials/*/checkpoint.*"))


def test_a_file_of_another_base_is_refused_before_any_training(images: Path, tmp_path: Path) -> None:
    wider = tiny_experiment(images).base.kwargs | {"embed_dim": 32}
    model = timm.create_model("vit_tiny_patch16_224", img_size=16, num_classes=0, **wider)
    save_tensors(tmp_path / "wider.safetensors", model.state_dict())
    experiment = small_search(images, str(tmp_path / "wider.safetensors"))
    with pytest.raises(ExperimentError, match=r"^proxy\.trunk: weights: '.*wider\.safetensors' does not fit"):
        searched(experiment, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(ExperimentError, match=r"^proxy\.trunk: no file 'no_such\.safetensors' \(expected "):
        searched(small_search(images, "no_such.safetensors"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
