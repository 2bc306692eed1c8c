"""Compiled trainings: what torch cannot compile is trained as it is written, and no head of a screen is passed over."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from headsearch.heads.registry import parse_head
from headsearch.testing.tiny import Context, tiny_experiment, training
from headsearch.training.evaluator import Evaluator
from headsearch.training.trial import TrainingResult

HEADS = [parse_head({"poolformer": {"depth": depth}}) for depth in (1, 2, 3, 4, 5)]


def screened(images: Path, workdir: Path, *, compiled: bool) -> TrainingResult:
    """Two heads of all in each step, which is not the same as the last two of a queue."""
    experiment = tiny_experiment(
        images,
        proxy={"epochs": 1, "compile": compiled},
        search={"strategy": "screen", "replicates": 1, "screen": {"heads_per_step": 2, "reduction": 1}},
    )
    return Evaluator(experiment)(training(workdir, *HEADS, stage="screen"), Context())


@pytest.mark.slow
def test_without_a_compiler_a_training_goes_on_as_without_the_setting_and_says_so(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._inductor import config

    plain = screened(images, tmp_path / "plain", compiled=False)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    with config.patch("cpp.cxx", (None, str(tmp_path / "no compiler"))):
        uncompiled = screened(images, tmp_path / "uncompiled", compiled=True)
    assert [trial.rungs for trial in uncompiled.trials] == [trial.rungs for trial in plain.trials]
    (note,) = uncompiled.notes
    assert note.startswith("compile: torch cannot compile here, and training goes on without: ")
    assert plain.notes == ()


def test_every_head_of_a_screen_is_compiled(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._dynamo.utils import counters

    plain = screened(images, tmp_path / "plain", compiled=False)
    # Graphs are taken as ever and then run as they are: no compiler is waited for.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    counters.clear()
    compiled = screened(images, tmp_path / "compiled", compiled=True)
    assert compiled.notes == ()
    assert [trial.rungs for trial in compiled.trials] == [trial.rungs for trial in plain.trials]
    # Of student and teacher, base and heads: more than torch keeps of one piece of code.
    assert counters["stats"]["unique_graphs"] >= 2 * (1 + len(HEADS))
