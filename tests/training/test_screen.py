"""Joint runs of tiny models: turns, scores, heads that leave, memory that is freed, and resuming."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest
import torch

from headsearch.errors import ExperimentError, InfeasibleHead
from headsearch.experiment import Experiment
from headsearch.heads import Candidate
from headsearch.heads.build import Head
from headsearch.heads.cost import HeadCost
from headsearch.heads.registry import parse_head
from headsearch.scoring.cost import head_cost
from headsearch.scoring.score import head_score
from headsearch.testing.tiny import Context, tiny_experiment, training
from headsearch.training.candidates import CandidatesRun
from headsearch.training.evaluator import Evaluator
from headsearch.training.trial import TrialResult

HEADS = [
    parse_head(head)
    for head in (
        {"convnext": {"depth": 1, "kernel_size": 3}},
        {"mixer": {"depth": 1}},
        {"vit": {"depth": 1}},
        {"poolformer": {"depth": 1, "first_shortcut": False}},
        {"resmlp": {"depth": 1}},
    )
]


def experiment(images: Path, method: str = "mocov3", **screen: object) -> Experiment:
    return tiny_experiment(
        images,
        method={"name": method},
        search={"strategy": "screen", "screen": {"heads_per_step": 2, "reduction": 2, **screen}},
    )


def start(images: Path, workdir: Path, seed: int = 0, **options: object) -> CandidatesRun:
    wanted = training(workdir, *HEADS, seed=seed, stage="screen")
    return Evaluator(experiment(images, **options)).start(wanted, Context())


def finished(run: CandidatesRun) -> tuple[TrialResult, ...]:
    """How the heads of a screen ended; what they cost is no matter."""
    run.run()
    return run.result([HeadCost(0, 0)] * len(HEADS)).trials


def screened(
    images: Path, workdir: Path, seed: int = 0, context: Context | None = None, **screen: object
) -> tuple[TrialResult, ...]:
    wanted = training(workdir, *HEADS, seed=seed, stage="screen")
    return Evaluator(experiment(images, **screen))(wanted, context or Context()).trials


def test_every_head_is_scored_on_its_own_and_without_labels(images: Path, tmp_path: Path) -> None:
    context = Context()
    results = screened(images, tmp_path, context=context, reduction=1)
    assert [result.state for result in results] == ["complete"] * 5
    for result in results:
        assert [scores.epoch for scores in result.rungs] == [2, 4]
        assert all(scores.knn is None and scores.linear is None for scores in result.rungs)
        assert set(result.rungs[-1].quality) >= {"retrieval.head", "alignment.head", "uniformity.head"}
    info = start(images, tmp_path / "other").trainer.hssl.student.base.info
    assert [result.cost for result in results] == [head_cost(config, info) for config in HEADS]
    assert len({result.rungs[-1].discrepancy for result in results}) == 5
    assert [scores.epoch for scores in context.reported] == [2] * 5 + [4] * 5
    assert context.places == [0, 1, 2, 3, 4] * 2
    assert context.reported[5:] == [result.rungs[-1] for result in results]


def test_heads_take_turns_and_none_has_more_than_its_share(images: Path, tmp_path: Path) -> None:
    run = start(images, tmp_path)
    turns = [run._take_turns() for _ in range(50)]
    assert all(len(active) == len(set(active)) == 2 for active in turns)
    for steps in range(1, 51):
        counts = Counter(index for active in turns[:steps] for index in active)
        assert max(counts.values()) - min(counts[index] for index in range(5)) <= 1
    assert len({tuple(active) for active in turns}) > 5, (
        "who is trained together is drawn anew in every round"
    )


def test_the_worse_half_is_dropped_at_a_rung_and_frees_its_memory(images: Path, tmp_path: Path) -> None:
    run = start(images, tmp_path)
    weights = sum(p.numel() for p in run.trainer.hssl.parameters())
    results = finished(run)
    first = [head_score(h.rungs[0].measures, h.rungs[0].quality) or 0.0 for h in results]
    best = sorted(range(5), key=lambda index: -first[index])[:3]
    assert (
        sorted(best) == [index for index, head in enumerate(results) if head.state == "complete"] == run.alive
    )
    for index in set(range(5)) - set(best):
        dropped = results[index]
        assert dropped.state == "stopped"
        assert len(dropped.rungs) == 1
        assert dropped.reason is not None
        assert "of 5 by score at epoch 2 of the screen; the best 3 went on" in dropped.reason
    hssl = run.trainer.hssl
    assert hssl.pairings == tuple(run.alive)
    assert sum(isinstance(head, Head) for head in hssl.student.heads) == 3
    assert sum(p.numel() for p in hssl.parameters()) < weights
    trained = {id(p) for group in run.trainer.optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in hssl.student.parameters()}
    assert {id(p) for p in run.trainer.optimizer.state} <= trained


def test_a_head_that_overflows_leaves_and_the_others_are_none_the_worse(images: Path, tmp_path: Path) -> None:
    run = start(images, tmp_path, reduction=1)
    with torch.no_grad():
        next(run.trainer.hssl.student.heads[1].parameters()).fill_(float("inf"))
    results = finished(run)
    assert [head.state for head in results] == [
        "complete",
        "infeasible",
        "complete",
        "complete",
        "complete",
    ]
    assert results[1].reason is not None
    assert "the loss is not finite" in results[1].reason
    assert all(torch.isfinite(p).all() for p in run.trainer.hssl.student.parameters())


def test_a_collapsed_head_is_infeasible_at_the_end(images: Path, tmp_path: Path) -> None:
    run = start(images, tmp_path, reduction=1)
    head = run.trainer.hssl.student.heads[2]
    head.norm.weight.requires_grad_(False).zero_()
    results = finished(run)
    assert [result.state for result in results] == ["complete"] * 2 + ["infeasible"] + ["complete"] * 2
    assert (
        results[2].reason
        == "the head collapsed: its embeddings hardly differ between images (std 0, needs 0.01) (epoch 4)"
    )


def test_a_screen_without_heads_left_ends(images: Path, tmp_path: Path) -> None:
    run = start(images, tmp_path)
    with torch.no_grad():
        for head in run.trainer.hssl.student.heads:
            next(head.parameters()).fill_(float("nan"))
    with pytest.raises(InfeasibleHead, match="no head of the screen is left"):
        run.run()


def test_the_same_seed_gives_the_same_scores_and_another_seed_others(images: Path, tmp_path: Path) -> None:
    first, again, other = (
        screened(images, tmp_path / name, seed) for name, seed in (("a", 3), ("b", 3), ("c", 4))
    )
    assert first == again
    assert [result.rungs for result in first] != [result.rungs for result in other]


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_a_screen_that_is_resumed_ends_as_if_it_had_not_been_interrupted(
    images: Path, tmp_path: Path, epochs: int
) -> None:
    undisturbed = screened(images, tmp_path / "whole")
    run = start(images, tmp_path / "cut")
    for _ in range(epochs):
        run._epoch_ended(run.train_epoch())
    run._save()
    assert screened(images, tmp_path / "cut") == undisturbed


def test_all_heads_in_every_step_is_a_choice(images: Path, tmp_path: Path) -> None:
    run = start(images, tmp_path, heads_per_step=5)
    assert run._take_turns() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("method", ["dino", "ijepa"])
def test_methods_with_state_or_masks_go_on_when_heads_are_dropped(
    images: Path, tmp_path: Path, method: str
) -> None:
    results = screened(images, tmp_path / "whole", method=method)
    assert sorted(result.state for result in results) == ["complete"] * 3 + ["stopped"] * 2
    assert all(math.isfinite(rung.loss) for result in results for rung in result.rungs)
    run = start(images, tmp_path / "cut", method=method)
    for _ in range(3):
        run._epoch_ended(run.train_epoch())
    run._save()
    assert screened(images, tmp_path / "cut", method=method) == results


def test_the_temperature_of_patches_rises_whichever_heads_are_dropped(images: Path, tmp_path: Path) -> None:
    temperatures = []
    for dropped in (0, 4):
        run = start(images, tmp_path / str(dropped), method="ibot")
        run._leave(dropped, "stopped", "for the test")
        run.train_epoch()
        run.train_epoch()
        # What the patch loss is computed with is the first method's, whatever becomes of its head.
        temperatures.append(run.trainer.hssl.methods[0].patch_temperature)
    options = run.trainer.hssl.methods[0].options
    assert temperatures[0] == temperatures[1] > options.warmup_teacher_patch_temperature


def test_a_head_that_overflows_moves_no_centre_of_the_others_twice(images: Path, tmp_path: Path) -> None:
    run = start(images, tmp_path, method="ibot", heads_per_step=5, reduction=1)
    with torch.no_grad():
        next(run.trainer.hssl.student.heads[1].parameters()).fill_(float("inf"))
    moved: list[str] = []
    for place, method in enumerate(run.trainer.hssl.methods):
        real = method.center.update
        method.center.update = lambda x, real=real, place=place: (moved.append(f"{place}"), real(x))
    follow = run.trainer.hssl.methods[0]._follow
    run.trainer.hssl.methods[0]._follow = lambda x: (moved.append("patches"), follow(x))
    images_ = next(iter(run.images.batches(32, drop_last=True)))[0]
    run._train(images_, 0)
    assert run.alive == [0, 2, 3, 4]
    assert sorted(moved) == ["0", "1", "2", "3", "4", "patches"]
    assert all(torch.isfinite(p).all() for p in run.trainer.hssl.student.parameters())


def test_a_step_in_which_every_head_overflows_is_lost_and_nothing_else(images: Path, tmp_path: Path) -> None:
    run = start(images, tmp_path, reduction=1)
    first = run._take_turns()
    run._state.queue, run._state.rounds = [], 0
    with torch.no_grad():
        for place in first:
            next(run.trainer.hssl.student.heads[place].parameters()).fill_(float("inf"))
    results = finished(run)
    assert [place for place, result in enumerate(results) if result.state == "infeasible"] == first
    assert all(results[place].reason.startswith("the loss is not finite") for place in first)
    assert sum(result.state == "complete" for result in results) == 3


def test_a_screen_that_does_not_fit_into_memory_is_refused_with_what_would(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator = Evaluator(experiment(images, heads_per_step=5))
    heads = [Candidate.of(head) for head in HEADS]
    evaluator.check_screen(heads)
    # What is free decides, and it is the one thing that a test cannot arrange for.
    monkeypatch.setattr("headsearch.training.evaluator.free_memory", lambda device: 2**20)
    with pytest.raises(
        ExperimentError,
        match=r"^search\.screen: 5 heads on one base, 5 in each step, need about .* of memory",
    ):
        evaluator.check_screen(heads)
