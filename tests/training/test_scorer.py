"""Scoring of students: one head, several, none, and heads that broke."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from headsearch.base.model import Base, load_base
from headsearch.data.augment import Views
from headsearch.data.left_out import LeftOut
from headsearch.data.recipe import Augmentation
from headsearch.data.sets import Dataset, MemoryImages
from headsearch.heads import parse_head
from headsearch.heads.build import build_head
from headsearch.methods import build_method
from headsearch.methods.hssl import HSSL, Student
from headsearch.scoring.discrepancy import MEASURES
from headsearch.scoring.quality import QUALITIES, qualities
from headsearch.training.scorer import Scorer
from headsearch.training.seeds import derived_generator

HEADS = ({"convnext": {"depth": 1}}, {"mixer": {"depth": 1}}, {"resnet": {"depth": 1, "block": "basic"}})


@pytest.fixture(scope="module")
def base() -> Base:
    torch.manual_seed(0)
    kwargs = {"patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}
    return load_base("vit_tiny_patch16_224", image_size=16, kwargs=kwargs)


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(1300) % 2
    pixels = torch.randint(0, 200, (1300, 3, 16, 16), generator=random, dtype=torch.uint8)
    pixels[labels == 1, 0] += 50
    held_out, train = MemoryImages(pixels[:1100], labels[:1100]), MemoryImages(pixels[1100:], labels[1100:])
    mean = std = (0.5, 0.5, 0.5)
    dataset = Dataset("made", train, held_out, None, mean, std, 16, LeftOut())
    views = Views(Augmentation(blur=(0.0, 0.0)), image_size=16, mean=mean, std=std)
    return Scorer(dataset, views, discrepancy="cka.tokens.output", labels=True, seed=3)


def student_with(base: Base, *heads: dict[str, object]) -> Student[Base]:
    torch.manual_seed(1)
    return HSSL.make_student(
        base, [build_head(parse_head(head), base.info) for head in heads], build_method("mocov3", width=16)
    )


def test_every_head_of_a_student_is_scored_as_if_it_were_alone(base: Base, scorer: Scorer) -> None:
    student = student_with(base, *HEADS)
    together = scorer.score_heads(student.base, list(student.heads), epoch=2, loss=0.5)
    assert len(together) == 3
    for head, rung in zip(student.heads, together, strict=True):
        alone = student_with(base)
        alone.heads.append(head)
        [expected] = scorer.score_heads(alone.base, list(alone.heads), epoch=2, loss=0.5)
        assert rung == expected
        assert rung.scores is not None
        assert (rung.scores.epoch, rung.scores.loss) == (2, 0.5)
        assert set(rung.scores.measures) == set(MEASURES)
        assert set(rung.scores.quality) == set(QUALITIES)
        assert rung.scores.discrepancy == rung.scores.measures["cka.tokens.output"]
        assert (rung.scores.knn, rung.scores.linear) == (None, None)


def test_the_score_of_a_set_is_the_mean_over_its_heads(base: Base, scorer: Scorer) -> None:
    student = student_with(base, *HEADS)
    heads = [rung.scores for rung in scorer.score_heads(student.base, list(student.heads), epoch=2, loss=0.5)]
    whole = scorer.score(student, epoch=2, loss=0.5, full_budget=False).scores
    assert whole is not None
    assert whole.knn is not None
    for name in MEASURES:
        assert whole.measures[name] == pytest.approx(sum(head.measures[name] for head in heads if head) / 3)
    for name in QUALITIES:
        assert whole.quality[name] == pytest.approx(sum(head.quality[name] for head in heads if head) / 3)
    assert whole.rankme_head == pytest.approx(sum(head.rankme_head or 0.0 for head in heads if head) / 3)
    assert whole.discrepancy == whole.measures["cka.tokens.output"]
    assert heads[0] is not None
    assert (whole.rankme_base, whole.std_base) == (heads[0].rankme_base, heads[0].std_base)


def test_the_score_of_one_head_is_its_own_with_the_probe_added(base: Base, scorer: Scorer) -> None:
    student = student_with(base, HEADS[0])
    [alone] = scorer.score_heads(student.base, list(student.heads), epoch=2, loss=0.5)
    probed = scorer.score(student, epoch=2, loss=0.5, full_budget=True).scores
    assert probed is not None
    assert probed.knn is not None
    assert probed.linear is not None
    assert replace(probed, knn=None, linear=None) == alone.scores


def test_without_heads_the_base_alone_is_scored(base: Base, scorer: Scorer) -> None:
    [rung] = scorer.score_heads(base, [], epoch=1, loss=0.5)
    assert rung.scores is not None
    assert rung.scores.measures == {}
    assert set(rung.scores.quality) == {"retrieval.base", "alignment.base", "uniformity.base"}
    assert rung.scores.rankme_base is not None
    assert rung.scores.rankme_head is None


def test_quality_is_measured_on_views_of_a_thousand_images_that_are_the_same_every_time(
    base: Base, scorer: Scorer
) -> None:
    rungs = [scorer.score_heads(base, [], epoch=epoch, loss=0.5)[0] for epoch in (1, 2)]
    first, second = (rung.scores.quality for rung in rungs if rung.scores is not None)
    assert first == second
    held_out = scorer.dataset.held_out
    order = torch.randperm(len(held_out), generator=derived_generator(3, "scored part"))[:1000]
    generator = derived_generator(3, "quality views")
    sides: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    base.eval()
    for positions in order.split(256):
        views = scorer.views(held_out.images[positions], generator, "cpu")  # type: ignore[attr-defined]
        for side, view in zip(sides, views, strict=True):
            with torch.no_grad():
                side.append(base(view).embedding)
    assert sum(map(len, sides[0])) == 1000
    assert first == pytest.approx(qualities("base", *(torch.cat(side) for side in sides)), abs=1e-6)


def test_one_broken_head_does_not_spoil_the_others_but_a_set_as_a_whole(base: Base, scorer: Scorer) -> None:
    student = student_with(base, *HEADS)
    with torch.no_grad():
        student.heads[1].norm.weight.fill_(math.nan)
        student.heads[2].norm.weight.zero_()
    healthy, broken, collapsed = scorer.score_heads(student.base, list(student.heads), epoch=1, loss=0.5)
    assert healthy.scores is not None
    assert healthy.collapsed is None
    assert broken.scores is None
    assert broken.collapsed == "the head's embeddings are not finite"
    assert collapsed.scores is not None
    assert collapsed.collapsed is not None
    assert "the head collapsed" in collapsed.collapsed
    assert scorer.score(student, epoch=1, loss=0.5, full_budget=False) == broken


def test_a_broken_base_spoils_every_head(scorer: Scorer) -> None:
    torch.manual_seed(0)
    kwargs = {"patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}
    broken = load_base("vit_tiny_patch16_224", image_size=16, kwargs=kwargs)
    with torch.no_grad():
        next(broken.parameters()).fill_(math.inf)
    student = student_with(broken, *HEADS)
    rungs = scorer.score_heads(student.base, list(student.heads), epoch=1, loss=0.5)
    assert [rung.scores for rung in rungs] == [None, None, None]
    assert {rung.collapsed for rung in rungs} == {"the base's embeddings are not finite"}
    assert scorer.score(student, epoch=1, loss=0.5, full_budget=False).scores is None
