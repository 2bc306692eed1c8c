"""Trials over several ranks: the scores of one, its stops and checkpoints; and what becomes of a rank that fails or dies."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from batch_norm import synchronise_on_cpu
from processes import FEW_PAIRS, Started
from safetensors.torch import load_file

from headsearch.errors import ExperimentError, HeadError, InfeasibleHead, TrialStopped
from headsearch.experiment import Experiment
from headsearch.heads import Candidate, HeadConfig
from headsearch.heads.registry import parse_head
from headsearch.methods.collectives import rank, world_size
from headsearch.search.executors import Failed, attempt
from headsearch.testing.tiny import Context, tiny_experiment, training
from headsearch.training import evaluator, loop, overhead
from headsearch.training.evaluator import Evaluator
from headsearch.training.sharing import SharedGPU
from headsearch.training.trial import (
    BEGINNING,
    CHECKPOINTS,
    EMBEDDINGS,
    TRUNK,
    Training,
    TrainingContext,
    TrainingResult,
    TrialStage,
)

CONVNEXT, MIXER, VIT, POOLFORMER = (
    parse_head(head)
    for head in (
        {"convnext": {"depth": 1, "kernel_size": 3}},
        {"mixer": {"depth": 1}},
        {"vit": {"depth": 1}},
        {"poolformer": {"depth": 1, "first_shortcut": False}},
    )
)
STEPS = 12
"""Of a training."""


def experiment(images: Path, gpus: int, method: str = "dino", **proxy: Any) -> Experiment:
    return tiny_experiment(
        images,
        # No dropped paths, which every rank draws for itself.
        base={
            "model": "vit_tiny_patch16_224",
            "kwargs": {"patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2},
        },
        method={"name": method},
        search={
            "executor": {"kind": "ray", "gpus_per_trial": gpus},
            "screen": {"heads_per_step": 2, "reduction": 2},
        },
        **({"proxy": proxy} if proxy else {}),
    )


class Synchronised(Evaluator):
    """Its ranks normalise by the batch of all, also on a CPU. `trouble` is called before every step, with the number of the rank and of the step."""

    def __init__(self, experiment: Experiment, trouble: Callable[[int, int], None] | None = None) -> None:
        super().__init__(experiment, checkpoint_seconds=1e9)
        self.trouble = trouble

    def __call__(self, training: Training, context: TrainingContext) -> TrainingResult:
        if world_size() > 1:
            synchronise_on_cpu()
            overhead._PAIRS = FEW_PAIRS
            # Every step is told of, however short it is.
            loop._PROGRESS_SECONDS = 0.0
        return super().__call__(training, context)

    def start(self, training: Training, context: TrainingContext) -> Any:
        run = super().start(training, context)
        train = run._train

        def troubled(images: torch.Tensor, step: int) -> torch.Tensor:
            if self.trouble is not None:
                self.trouble(rank(), step)
            return train(images, step)

        run._train = troubled  # type: ignore[method-assign]
        return run


def dies(number: int, step: int) -> None:
    if (number, step) == (1, 7):
        os.kill(os.getpid(), signal.SIGKILL)


def fails(number: int, step: int) -> None:
    if (number, step) == (1, 7):
        raise HeadError("rank 1 does not like it")


def finds_its_gpu_full(number: int, step: int) -> None:
    tried = Path(os.environ["PIDS"]) / "tried"
    if (number, step) == (1, 3) and not tried.exists():
        tried.touch()
        raise torch.OutOfMemoryError("CUDA out of memory")


def hangs(number: int, step: int) -> None:
    if step == 7:
        (Path(os.environ["PIDS"]) / str(os.getpid())).touch()
        time.sleep(600 * number)


def trained(
    images: Path, folder: Path, gpus: int, *heads: HeadConfig, stage: TrialStage = "proxy", **options: Any
) -> tuple[TrainingResult, Context]:
    context = Context()
    evaluate = Synchronised(experiment(images, gpus, **options))
    return evaluate(training(folder, *heads, stage=stage), context), context


def alike(found: TrainingResult, expected: TrainingResult, tolerance: float) -> None:
    """The same scores, up to rounding in single precision, which Adam makes larger where gradients are tiny."""
    for one, other in zip(found.trials, expected.trials, strict=True):
        assert (one.state, one.reason) == (other.state, other.reason)
        for scores, wanted in zip(one.rungs, other.rungs, strict=True):
            first, second = scores.to_dict(), wanted.to_dict()
            for key in ("measures", "quality"):
                assert first.pop(key) == pytest.approx(second.pop(key), rel=tolerance, abs=tolerance)
            # Shares of 40 images: one of them may be on the brink.
            for key in ("knn", "linear"):
                assert first.pop(key) == pytest.approx(second.pop(key), abs=2.6)
            assert first == pytest.approx(second, rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("method", ["mocov3", "ibot"])
def test_a_proxy_over_two_ranks_has_the_scores_of_one(images: Path, tmp_path: Path, method: str) -> None:
    two, told = trained(images, tmp_path / "two", 2, CONVNEXT, method=method)
    one, _ = trained(images, tmp_path / "one", 0, CONVNEXT, method=method)
    alike(two, one, 1e-3)
    assert told.reported == list(two.trials[0].rungs)
    assert two.trials[0].cost is not None
    assert two.trials[0].cost.overhead is not None
    assert told.told, "progress is told"
    lines = (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == len((tmp_path / "one" / "metrics.jsonl").read_text().splitlines())


def test_a_screen_over_two_ranks_has_the_scores_of_one(images: Path, tmp_path: Path) -> None:
    heads = (CONVNEXT, MIXER, VIT, POOLFORMER)
    two, told = trained(images, tmp_path / "two", 2, *heads, stage="screen")
    one, _ = trained(images, tmp_path / "one", 0, *heads, stage="screen")
    alike(two, one, 1e-3)
    assert sorted(result.state for result in two.trials) == ["complete", "complete", "stopped", "stopped"]
    assert told.places[:4] == [0, 1, 2, 3]


def test_it_is_stopped_and_goes_on_from_its_checkpoint(images: Path, tmp_path: Path) -> None:
    undisturbed, _ = trained(images, tmp_path / "undisturbed", 2, CONVNEXT)
    wanted, context = training(tmp_path / "stopped", CONVNEXT), Context(stop_at=2)
    evaluate = Synchronised(experiment(images, 2))
    with pytest.raises(TrialStopped):
        evaluate(wanted, context)
    (left,) = wanted.workdir.glob(CHECKPOINTS)
    assert f"{STEPS // 2:09}" in left.name
    shutil.copytree(wanted.workdir, tmp_path / "alone")
    alone, _ = trained(images, tmp_path / "alone", 0, CONVNEXT)
    alike(alone, undisturbed, 1e-3)
    again = Context()
    assert evaluate(wanted, again).trials[0].rungs == undisturbed.trials[0].rungs
    assert [scores.epoch for scores in again.reported] == [2, 4], "the first is told again, not scored"
    assert min(epoch for epoch, *_ in again.told) > 2


@pytest.mark.parametrize(
    ("trouble", "reason", "kind"),
    [
        (dies, r"RankLost: rank 1 of 2 ended unexpectedly (signal SIGKILL)", "failed"),
        (fails, "rank 1 does not like it", "infeasible"),
    ],
)
def test_a_rank_that_dies_or_fails_ends_the_trial_which_can_be_taken_up(
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    trouble: Callable[[int, int], None],
    reason: str,
    kind: str,
) -> None:
    wanted, context = training(tmp_path / "troubled", VIT), Context()
    begun = time.monotonic()
    outcome = attempt(
        Synchronised(experiment(images, 2), trouble),
        wanted,
        lambda _, place, scores: context.report(place, scores) is None,
        lambda *_: None,
        lambda *_: None,
    )
    assert isinstance(outcome, Failed)
    assert (outcome.reason, outcome.kind) == (reason, kind)
    assert ("in fails" in outcome.details) == (trouble is fails), "where a rank raised it is told"
    assert time.monotonic() - begun < 300, "nobody waits for a rank that is gone"
    assert multiprocessing.active_children() == []
    assert [scores.epoch for scores in context.reported] == [2]
    again = Context()
    monkeypatch.setattr(loop, "_PROGRESS_SECONDS", 0.0)
    assert Synchronised(experiment(images, 0))(wanted, again).trials[0].state == "complete"
    assert min(epoch for epoch, *_ in again.told) > 2


def test_a_trial_of_which_one_gpu_is_full_is_tried_again_alone(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIDS", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    # There are no GPUs here; what tells trainings of each other is two files.
    both = lambda device, ranks, waits: [SharedGPU(name, waits) for name in "ab"]  # noqa: E731
    monkeypatch.setattr(evaluator, "shared_gpus", both)
    evaluate = Synchronised(experiment(images, 2), finds_its_gpu_full)
    assert evaluate(training(tmp_path / "trial", VIT), Context()).trials[0].state == "complete"
    assert (tmp_path / "tried").exists()
    assert len(list(tmp_path.glob("headsearch-[ab].*"))) == 4


def test_a_loss_that_is_not_finite_ends_it_as_it_ends_one(images: Path, tmp_path: Path) -> None:
    reasons = []
    for gpus in (0, 2):
        with pytest.raises(InfeasibleHead) as caught:
            trained(images, tmp_path / str(gpus), gpus, VIT, learning_rate=1e30, epochs=4)
        reasons.append(str(caught.value))
    assert reasons[0] == reasons[1]
    assert "the loss is not finite" in reasons[0]


def test_a_trunk_and_what_branches_from_it(images: Path, tmp_path: Path) -> None:
    options = {"trunk": {"epochs": 2}, "epochs": 2, "rungs": [2], "learning_rate": 1e-3}
    for gpus in (0, 2):
        trained(images, tmp_path / f"trunk-{gpus}", gpus, HeadConfig(), stage="trunk", **options)
    one, two = (load_file(tmp_path / f"trunk-{gpus}" / TRUNK) for gpus in (0, 2))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-2, atol=1e-4)
    folder = tmp_path / "branch"
    folder.mkdir()
    shutil.copy(tmp_path / "trunk-2" / TRUNK, folder / BEGINNING)
    branch, _ = trained(images, folder, 2, HeadConfig(), **options)
    assert branch.trials[0].state == "complete"
    assert (folder / EMBEDDINGS).is_file()


def report_to_nobody(images: Path, folder: Path) -> None:
    os.environ["PIDS"] = str(folder)
    trained_ranks = Synchronised(experiment(images, 2), hangs)
    trained_ranks(training(folder / "trial", VIT), Context())


def test_ranks_end_with_the_worker_that_started_them(images: Path, tmp_path: Path) -> None:
    worker = Started(report_to_nobody, images, tmp_path)
    pids = waited_for(lambda: [int(path.name) for path in tmp_path.iterdir() if path.name.isdecimal()], 2)
    worker.process.kill()
    assert waited_for(lambda: [pid for pid in pids if not Path(f"/proc/{pid}").exists()], 2) == pids


def waited_for(look: Callable[[], list[int]], count: int) -> list[int]:
    until = time.monotonic() + 300
    while len(found := look()) < count:
        assert time.monotonic() < until, f"only {found}"
        time.sleep(0.1)
    return sorted(found)


def test_what_ranks_cannot_share_is_refused_when_read(images: Path) -> None:
    with pytest.raises(
        ExperimentError, match=r"proxy\.batch_size: 32 images do not divide among the 3 GPUs of search\.exec"
    ):
        experiment(images, 3)


def test_memory_is_counted_for_the_share_of_a_rank(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heads = [Candidate.of(head) for head in (CONVNEXT, MIXER, VIT, POOLFORMER)]
    one, two, four = (Evaluator(experiment(images, gpus)).check_screen(heads) for gpus in (0, 2, 4))
    # Weights are whole on every rank; what is kept of images is shared.
    assert one - two == pytest.approx(2 * (two - four))
    monkeypatch.setattr(evaluator, "free_memory", lambda device: int(2.2 * two))
    Evaluator(experiment(images, 0)).check_screen(heads)
    monkeypatch.setattr(evaluator, "free_memory", lambda device: int(2 * two))
    with pytest.raises(ExperimentError, match="need about"):
        Evaluator(experiment(images, 2)).check_screen(heads)


def test_the_first_step_of_a_plan_is_a_ranks_share(images: Path) -> None:
    for gpus, count in ((0, 32), (2, 16)):
        views = Evaluator(experiment(images, gpus))._some_views(0)
        assert {len(view) for view in views} == {count}
