"""The zero-cost stage on a tiny base and the embedded digits."""

from __future__ import annotations

import contextlib
import pickle
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headsearch.base.model import load_base
from headsearch.errors import BaseModelError, DataError, RunError, SpaceError
from headsearch.experiment import Experiment, parse_experiment
from headsearch.heads import FAMILIES, Candidate, parse_head
from headsearch.heads.build import Block
from headsearch.heads.config import HeadConfig
from headsearch.scoring.score import head_score
from headsearch.scoring.zero_cost import UntrainedHeads
from headsearch.scoring.zero_cost_scores import (
    BASELINES,
    CKA_MEASURES,
    FILE_NAME,
    MEASURED,
    ZeroCostScores,
    ordered,
    read_scores,
)
from headsearch.search.zero_cost import ZeroCostScorer, score_space
from headsearch.space import load_space, parse_space
from headsearch.space.drawing import ENUMERABLE

CONVNEXT = Candidate.of(parse_head({"convnext": {"depth": 1, "kernel_size": 3}}))
RESNET = Candidate.of(parse_head({"resnet": {"depth": 1, "block": "basic"}}))
SPACE = parse_space(
    "space: headsearch/space@1\nhead: {one_of: [{mixer: {depth: {int: [1, 3]}}}, {mlp: {depth: {int: [1, 3]}}}]}\n"
    "constraints: [params <= 0.9 * base.params]",
    "mine.yaml",
)


LARGE = parse_space(
    "space: headsearch/space@1\nhead: {stack: {repeat: {int: [2, 4]}, each: {one_of: [{mlp: {depth: {int: [1, 2]}, mlp_ratio: {choice: [1, 2, 3, 4]}}}, "
    "{convnext: {depth: 1, kernel_size: {choice: [3, 5, 7]}}}, {mixer: {depth: 1, mlp_ratio: {choice: [1, 2, 3, 4]}}}]}}}",
    "large.yaml",
)


def experiment(**sections: dict[str, Any]) -> Experiment:
    defaults: dict[str, dict[str, Any]] = {
        "base": {
            "model": "vit_tiny_patch16_224",
            "kwargs": {"patch_size": 4, "embed_dim": 32, "depth": 1, "num_heads": 2},
        },
        "data": {"dataset": "digits", "image_size": 16},
        "proxy": {"device": "cpu"},
    }
    return parse_experiment({**defaults, **sections})


def make(**options: Any) -> ZeroCostScorer:
    return ZeroCostScorer(experiment(), **{"seeds": 2, "images": 60, "tokens": 200, **options})


@pytest.fixture(scope="module")
def scorer() -> ZeroCostScorer:
    return make()


def test_a_head_has_every_score_with_its_spread(scorer: ZeroCostScorer) -> None:
    row = scorer.score(CONVNEXT)
    assert row.reason is None
    assert row.seeds == 2
    assert set(row.measures) == set(CKA_MEASURES)
    assert set(row.sd) == set(MEASURED)
    assert None not in {row.value(name) for name in MEASURED}
    assert {row.value(name) for name in BASELINES} == {None}
    assert all(value > 0 for value in row.sd.values())
    assert row.score == head_score(row.measures, row.quality)
    assert row.cost is not None
    assert row.cost.params > 0
    assert ZeroCostScores.from_dict(row.to_dict()) == row


def test_scores_are_means_over_seeds(scorer: ZeroCostScorer) -> None:
    one = make(seeds=1).score(CONVNEXT)
    both = scorer.score(CONVNEXT)
    assert one.sd == {}
    for name in MEASURED:
        # Of two values, half their distance is 1/√2 of the standard deviation.
        distance = abs(one.value(name) - both.value(name))  # type: ignore[operator]
        assert distance == pytest.approx(both.sd[name] / 2**0.5, rel=1e-6, abs=1e-9)


def test_scores_depend_neither_on_order_nor_on_the_process(scorer: ZeroCostScorer) -> None:
    first = scorer.score(CONVNEXT)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    other = scorer.score(RESNET)
    assert torch.equal(torch.get_rng_state(), state)
    assert (scorer.score(RESNET), scorer.score(CONVNEXT)) == (other, first)
    assert pickle.loads(pickle.dumps(scorer)).score(CONVNEXT) == first
    assert other != first


def test_several_threads_give_the_scores_of_one(scorer: ZeroCostScorer) -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = scorer.score(CONVNEXT)
        torch.set_num_threads(3)
        assert scorer.score(CONVNEXT) == alone
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


def test_maps_go_through_a_block_of_a_plugin_one_after_the_other(
    scorer: ZeroCostScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = scorer._prepared().heads
    with ThreadPoolExecutor(1) as pool:
        pool.shutdown()
        with pytest.raises(RuntimeError, match="after shutdown"):
            heads.run(parse_head({"mixer": {"depth": 1}}), 0, pool)
        monkeypatch.setitem(FAMILIES._guests, "mixer", FAMILIES["mixer"])
        assert len(heads.run(parse_head({"mixer": {"depth": 1}}), 0, pool)) == 3


def test_another_seed_of_the_experiment_draws_another_base_and_head(scorer: ZeroCostScorer) -> None:
    elsewhere = ZeroCostScorer(experiment().model_copy(update={"seed": 1}), seeds=2, images=60, tokens=200)
    assert elsewhere.score(CONVNEXT).measures != scorer.score(CONVNEXT).measures
    assert elsewhere.identity != scorer.identity
    assert make().identity == scorer.identity
    assert make(images=61).identity != scorer.identity


def test_given_weights_are_looked_at_once_and_heads_still_vary(tmp_path: Path) -> None:
    base = experiment().base
    made = load_base(base.model, image_size=16, kwargs=base.kwargs)
    torch.save(made.model.state_dict(), tmp_path / "base.pth")
    given = experiment(base={**base.model_dump(), "weights": str(tmp_path / "base.pth")})
    scorer = ZeroCostScorer(given, seeds=3, images=60, tokens=200)
    row = scorer.score(CONVNEXT)
    assert scorer._shared is not None
    assert len({id(outputs) for outputs in scorer._shared.outputs}) == 1
    assert row.sd["cka.embedding.output"] > 0


def test_labels_are_not_read(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, size=(60, 16, 16, 3)).astype(np.uint8)
    np.savez(tmp_path / "images.npz", train_images=pixels)
    data = {"dataset": "npz", "root": str(tmp_path / "images.npz"), "image_size": 16, "labels": "probe"}
    assert ZeroCostScorer(experiment(data=data), seeds=1).score(CONVNEXT).reason is None


def test_a_head_that_the_base_cannot_carry_has_a_reason(scorer: ZeroCostScorer) -> None:
    row = scorer.score(Candidate.of(parse_head({"vit": {"num_heads": 5}})))
    assert row.reason is not None
    assert "num_heads is 5" in row.reason
    assert (row.score, row.cost, row.measures) == (None, None, {})


def test_a_collapsed_head_has_a_reason_and_a_cost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = Block.build

    def dead(*arguments: Any) -> torch.nn.Module:
        block = real(*arguments)
        with torch.no_grad():
            for parameter in block.parameters():
                parameter.zero_()
        return block

    monkeypatch.setattr(Block, "build", dead)
    row = make().score(Candidate.of(parse_head({"mlp": {"first_shortcut": False}})))
    assert "the head collapsed" in (row.reason or "")
    assert row.score is None
    assert row.cost is not None


def test_too_few_images_and_worthless_bases_are_mistakes(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, size=(12, 16, 16, 3)).astype(np.uint8)
    np.savez(tmp_path / "images.npz", train_images=pixels)
    data = {"dataset": "npz", "root": str(tmp_path / "images.npz"), "image_size": 16}
    with pytest.raises(DataError, match="2 held-out images are too few"):
        ZeroCostScorer(experiment(data=data)).prepare()
    base = experiment().base
    made = load_base(base.model, image_size=16, kwargs=base.kwargs)
    with torch.no_grad():
        made.model.norm.weight.zero_()
    torch.save(made.model.state_dict(), tmp_path / "base.pth")
    given = experiment(base={**base.model_dump(), "weights": str(tmp_path / "base.pth")})
    with pytest.raises(BaseModelError, match="the base collapsed"):
        ZeroCostScorer(given).prepare()


def test_a_space_is_scored_whole_with_progress(scorer: ZeroCostScorer) -> None:
    told: list[tuple[int, int]] = []
    rows = score_space(SPACE, scorer, number=50, progress=lambda done, total: told.append((done, total)))
    refused = [
        config
        for config in SPACE.enumerate()
        if scorer.score(Candidate.of(config)).cost.params > 0.9 * scorer.base.params  # type: ignore[union-attr]
    ]
    assert refused
    assert len(rows) == 6 - len(refused)
    assert told == [(done, len(rows)) for done in range(1, len(rows) + 1)]


def test_a_killed_stage_goes_on_where_it_was(
    scorer: ZeroCostScorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headsearch.search import zero_cost as module

    monkeypatch.setattr(module, "_SAVED_EVERY", 0.0)
    whole = score_space(SPACE, scorer, number=50, path=tmp_path / "whole.jsonl")
    path = tmp_path / FILE_NAME

    def kill(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_space(SPACE, scorer, number=50, path=path, progress=kill)
    assert read_scores(path) == whole[:2]

    scored: list[str] = []

    class Counting(ZeroCostScorer):
        def score(self, candidate: Candidate, **options: Any) -> ZeroCostScores:
            scored.append(candidate.head_id)
            return super().score(candidate, **options)

    resumed = Counting(experiment(), seeds=2, images=60, tokens=200)
    assert score_space(SPACE, resumed, number=50, path=path) == whole
    assert scored == [row.head_id for row in whole[2:]]
    assert path.read_text() == (tmp_path / "whole.jsonl").read_text()
    with pytest.raises(RunError, match="other images or other seeds"):
        score_space(SPACE, make(seeds=3), number=50, path=path)


UNEVEN = parse_space(
    "space: headsearch/space@1\nhead: {one_of: [{mlp: {depth: {int: [1, 2]}, mlp_ratio: {choice: [1, 2, 3, 4]}}}, {mixer: {depth: {int: [1, 2]}}}]}",
    "uneven.yaml",
)
"""8 heads of one family, and 2 of another."""


def test_the_worse_half_of_a_large_family_is_left_at_its_first_seed(scorer: ZeroCostScorer) -> None:
    told: list[tuple[int, int]] = []
    rows = score_space(
        UNEVEN, scorer, number=50, places=2, progress=lambda done, total: told.append((done, total))
    )
    every = {row.head_id: row for row in score_space(UNEVEN, scorer, number=50)}
    first = score_space(UNEVEN, make(seeds=1), number=50)
    by_first = ordered(row for row in first if row.config.family == "mlp")
    left = {row.head_id: row for row in by_first[4:]}
    assert len(left) == 4
    assert {row.head_id: row for row in rows} == every | left
    assert told == [(done, 14) for done in range(1, 15)]


@pytest.mark.parametrize("places", [8, None])
def test_families_no_larger_than_the_places_get_all_seeds_at_once(
    scorer: ZeroCostScorer, places: int | None
) -> None:
    rows = score_space(UNEVEN, scorer, number=50, places=places)
    assert {row.seeds for row in rows} == {2}


@pytest.mark.parametrize("killed_at", [3, 10, 12])
def test_a_stage_killed_between_seeds_ends_as_one_that_was_not(
    scorer: ZeroCostScorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    from headsearch.search import zero_cost as module

    whole, path = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    runs: list[tuple[str, int]] = []

    class Counting(UntrainedHeads):
        def run(
            self, config: HeadConfig, place: int, threads: Executor | None = None
        ) -> tuple[torch.Tensor, ...]:
            runs.append((repr(config), place))
            return super().run(config, place, threads)

    def kill(done: int, total: int) -> None:
        if done == killed_at:
            raise KeyboardInterrupt

    score_space(UNEVEN, scorer, number=50, places=2, path=whole)
    monkeypatch.setattr(module, "UntrainedHeads", Counting)
    counted = make()
    with pytest.raises(KeyboardInterrupt):
        score_space(UNEVEN, counted, number=50, places=2, path=path, progress=kill)
    score_space(UNEVEN, counted, number=50, places=2, path=path)
    assert path.read_text() == whole.read_text()
    assert len(runs) == len(set(runs)) == 10 + 6


def test_baselines_are_added_where_they_are_asked_for_and_change_nothing_else(
    scorer: ZeroCostScorer, tmp_path: Path
) -> None:
    path = tmp_path / FILE_NAME
    before = score_space(SPACE, scorer, number=50, path=path)
    after = score_space(SPACE, make(baselines=True), number=50, path=path)
    assert all(row.value(name) is not None and name in row.sd for row in after for name in BASELINES)

    def rest(row: ZeroCostScores) -> dict[str, Any]:
        values = row.to_dict()
        return {
            **{name: value for name, value in values.items() if name not in BASELINES},
            "sd": {name: value for name, value in values["sd"].items() if name not in BASELINES},
        }

    assert [rest(row) for row in after] == [rest(row) for row in before]
    # A file that has them, as all did once, is taken as it is.
    assert score_space(SPACE, scorer, number=50, path=path) == after


def test_a_space_without_an_allowed_head_is_told(scorer: ZeroCostScorer) -> None:
    nothing = parse_space(
        "space: headsearch/space@1\nhead: {mixer: {}}\nconstraints: [params <= 1]", "mine.yaml"
    )
    with pytest.raises(SpaceError, match="no head of the space is allowed"):
        score_space(nothing, scorer, number=5)


def test_a_hundred_thousand_heads_asked_of_a_small_space_are_all_it_has(scorer: ZeroCostScorer) -> None:
    tiny = load_space("tiny")
    rows = score_space(tiny, make(seeds=1, images=20), number=100_000)
    assert len({row.head_id for row in rows}) == len(rows) <= tiny.count()  # type: ignore[operator]


def test_heads_that_nsga2_proposes_follow_the_scores_and_a_killed_stage_goes_on_with_them(
    tmp_path: Path,
) -> None:
    def scored(path: Path, number: int = 30, **options: Any) -> list[str]:
        scorer = ZeroCostScorer(experiment().model_copy(update=options), seeds=1, images=20, tokens=50)

        def kill(done: int, total: int) -> None:
            assert total == 30
            if done == number:
                raise KeyboardInterrupt

        with contextlib.suppress(KeyboardInterrupt):
            score_space(LARGE, scorer, number=30, sampler="nsga2", path=path, progress=kill)
        return [row.head_id for row in read_scores(path)]

    count = LARGE.count()
    assert count is not None
    assert count > ENUMERABLE
    whole = scored(tmp_path / "whole.jsonl", number=0)
    assert len(set(whole)) == len(whole) == 30
    assert scored(tmp_path / "killed.jsonl", number=17) == whole[:17]
    assert scored(tmp_path / "killed.jsonl", number=0) == whole
    assert (tmp_path / "killed.jsonl").read_text() == (tmp_path / "whole.jsonl").read_text()
    # A first generation that knows nothing, then generations that know how it scored.
    elsewhere = scored(tmp_path / "elsewhere.jsonl", number=0, seed=1)
    assert elsewhere[:10] == whole[:10]
    assert elsewhere[10:] != whole[10:]


def test_a_space_that_can_be_looked_through_is_drawn_at_random_whatever_proposes(
    scorer: ZeroCostScorer,
) -> None:
    assert score_space(SPACE, scorer, number=3, sampler="nsga2") == score_space(SPACE, scorer, number=3)
