"""Joint runs of tiny models: turns, scores, heads that leave, memory that is freed, and resuming."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from headsearch.errors import InfeasibleHead
from headsearch.experiment import Experiment
from headsearch.heads.build import Head
from headsearch.heads.config import HeadConfig
from headsearch.heads.registry import parse_head
from headsearch.scoring.cost import head_cost
from headsearch.scoring.score import head_score
from headsearch.testing.tiny import Context, tiny_experiment
from headsearch.training.proxy import ProxyEvaluator
from headsearch.training.screen import ScreenRun
from headsearch.training.trial import MemberScores, ScreenResult

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
JOINT = HeadConfig(members=tuple(HEADS))


def experiment(images: Path, **screen: object) -> Experiment:
    return tiny_experiment(
        images, search={"strategy": "screen", "screen": {"heads_per_step": 2, "reduction": 2, **screen}}
    )


def start(images: Path, workdir: Path, seed: int = 0, **screen: object) -> ScreenRun:
    evaluator = ProxyEvaluator(experiment(images, **screen))
    return evaluator.start_screen(JOINT, Context(workdir, seed, stage="screen"))


def screened(images: Path, workdir: Path, seed: int = 0, **screen: object) -> ScreenResult:
    result = ProxyEvaluator(experiment(images, **screen))(JOINT, Context(workdir, seed, stage="screen"))
    assert isinstance(result, ScreenResult)
    return result


def test_every_head_is_scored_on_its_own_and_without_labels(images: Path, tmp_path: Path) -> None:
    context = Context(tmp_path, stage="screen")
    result = ProxyEvaluator(experiment(images, reduction=1))(JOINT, context)
    assert isinstance(result, ScreenResult)
    assert [head.state for head in result.heads] == ["complete"] * 5
    for head in result.heads:
        assert [scores.epoch for scores in head.rungs] == [2, 4]
        assert all(scores.knn is None and scores.linear is None for scores in head.rungs)
        assert set(head.rungs[-1].quality) >= {"retrieval.head", "alignment.head", "uniformity.head"}
    info = start(images, tmp_path / "other").trainer.hssl.student.base.info
    assert [head.cost for head in result.heads] == [head_cost(config, info) for config in HEADS]
    assert len({head.rungs[-1].discrepancy for head in result.heads}) == 5
    reported = [scores for scores in context.reported if isinstance(scores, MemberScores)]
    assert [(scores.epoch, scores.member) for scores in reported] == [
        (e, m) for e in (2, 4) for m in range(5)
    ]
    assert [scores.alone() for scores in reported[5:]] == [head.rungs[-1] for head in result.heads]


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
    result = run.screen([head_cost(head, run.trainer.hssl.student.base.info) for head in HEADS])
    first = [head_score(h.rungs[0].measures, h.rungs[0].quality) or 0.0 for h in result.heads]
    best = sorted(range(5), key=lambda index: -first[index])[:3]
    assert (
        sorted(best)
        == [index for index, head in enumerate(result.heads) if head.state == "complete"]
        == run.alive
    )
    for index in set(range(5)) - set(best):
        dropped = result.heads[index]
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
    result = run.screen([head_cost(head, run.trainer.hssl.student.base.info) for head in HEADS])
    assert [head.state for head in result.heads] == [
        "complete",
        "infeasible",
        "complete",
        "complete",
        "complete",
    ]
    assert result.heads[1].reason is not None
    assert "the loss is not finite" in result.heads[1].reason
    assert all(torch.isfinite(p).all() for p in run.trainer.hssl.student.parameters())


def test_a_collapsed_head_is_infeasible_at_the_end(images: Path, tmp_path: Path) -> None:
    run = start(images, tmp_path, reduction=1)
    head = run.trainer.hssl.student.heads[2]
    head.norm.weight.requires_grad_(False).zero_()
    result = run.screen([head_cost(head, run.trainer.hssl.student.base.info) for head in HEADS])
    assert result.heads[2].state == "infeasible"
    assert result.heads[2].reason is not None
    assert "head" in result.heads[2].reason


def test_a_screen_without_heads_left_ends(images: Path, tmp_path: Path) -> None:
    run = start(images, tmp_path)
    with torch.no_grad():
        for head in run.trainer.hssl.student.heads:
            next(head.parameters()).fill_(float("nan"))
    with pytest.raises(InfeasibleHead, match="no head of the screen is left"):
        run.screen([])


def test_the_same_seed_gives_the_same_scores_and_another_seed_others(images: Path, tmp_path: Path) -> None:
    first, again, other = (
        screened(images, tmp_path / name, seed) for name, seed in (("a", 3), ("b", 3), ("c", 4))
    )
    assert first.heads == again.heads
    assert [head.rungs for head in first.heads] != [head.rungs for head in other.heads]


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_a_screen_that_is_resumed_ends_as_if_it_had_not_been_interrupted(
    images: Path, tmp_path: Path, epochs: int
) -> None:
    undisturbed = screened(images, tmp_path / "whole")
    run = start(images, tmp_path / "cut")
    for _ in range(epochs):
        loss = run.train_epoch()
        if run._state.epoch == 2:
            run._score_heads(loss)
    run._save()
    resumed = screened(images, tmp_path / "cut")
    assert resumed.heads == undisturbed.heads


def test_all_heads_in_every_step_is_a_choice(images: Path, tmp_path: Path) -> None:
    run = start(images, tmp_path, heads_per_step=5)
    assert run._take_turns() == [0, 1, 2, 3, 4]
