"""Heads at initialisation on cached maps, against the long way: base and head run together, image by image."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from headsearch.base.model import load_base
from headsearch.errors import InfeasibleHead
from headsearch.heads import FAMILIES, parse_head
from headsearch.heads.build import Block, build_head
from headsearch.scoring.collapse import rankme
from headsearch.scoring.discrepancy import Discrepancies, debiased_cka
from headsearch.scoring.features import extract_features, extract_view_embeddings
from headsearch.scoring.quality import view_retrieval
from headsearch.scoring.zero_cost import UntrainedHeads, measure_head, run_base, untrained
from headsearch.scoring.zero_cost_scores import CKA_MEASURES, MEASURED

KWARGS = {"patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2}


@pytest.fixture(scope="module")
def base():
    torch.manual_seed(0)
    return load_base("vit_tiny_patch16_224", image_size=16, kwargs=KWARGS)


@pytest.fixture(scope="module")
def images():
    random = torch.Generator().manual_seed(0)
    # Blobs: neighbouring pixels are alike, so that a flipped image is not just noise to the base.
    coarse = torch.rand(300, 3, 4, 4, generator=random)
    return (255 * nn.functional.interpolate(coarse, size=16, mode="bilinear")).to(torch.uint8)


def prepare(batch):
    return batch.float() / 127.5 - 1.0


def views(batch):
    return [prepare(batch), prepare(batch.roll(1, dims=3)), prepare(255 - batch)]


def look(base, images, max_tokens=10_000, seed=0):
    return run_base(base, images, prepare=prepare, views=views, max_tokens=max_tokens, seed=seed)


@pytest.fixture(scope="module")
def seen(base, images):
    return look(base, images)


def make(base, description, seed=1):
    torch.manual_seed(seed)
    return build_head(parse_head(description), base.info)


def measure(head, seen):
    head = untrained(head, torch.device("cpu"))
    with torch.no_grad():
        return measure_head([head(x_BCHW) for x_BCHW in seen.inputs], seen)


@pytest.mark.parametrize(
    "description",
    [{"convnext": {"depth": 1, "drop_path": 0.5}}, {"mixer": {"depth": 2, "first_shortcut": False}}],
)
def test_cached_maps_give_what_base_and_head_give_together(base, images, seen, description):
    head = make(base, description)
    [features] = extract_features(base, [head], [images], prepare=prepare, max_tokens=10_000, seed=0)
    seen_twice = extract_view_embeddings(base, [head], [images], views=views)
    measured = Discrepancies(features, torch.device("cpu")).of(features)
    expected = {name: measured[name] for name in CKA_MEASURES}
    expected |= {
        "retrieval.head": view_retrieval(*seen_twice.heads[0]),
        "rankme_head": rankme(features.head_embedding),
    }
    assert set(expected) == set(MEASURED)
    assert measure(head, seen) == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert 0 < expected["retrieval.head"] < 100


def test_batch_norms_normalise_by_the_batch_and_nothing_else_is_in_training_mode(base, seen):
    head = make(base, {"resnet": {"depth": 2, "block": "basic", "drop_path": 0.5}})
    twin = copy.deepcopy(head).eval()
    for module in twin.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()
    with torch.no_grad():
        tokens = torch.cat([twin(x).permute(0, 2, 3, 1).reshape(-1, 32) for x in seen.maps])
    base_tokens = torch.cat([x.permute(0, 2, 3, 1).reshape(-1, 32) for x in seen.maps])
    measured = measure(copy.deepcopy(head), seen)["cka.tokens.output"]
    assert measured == pytest.approx(1 - debiased_cka(base_tokens, tokens), abs=1e-5)
    with torch.no_grad():
        by_statistics = torch.cat([twin.eval()(x).permute(0, 2, 3, 1).reshape(-1, 32) for x in seen.maps])
    assert measured != pytest.approx(1 - debiased_cka(base_tokens, by_statistics), abs=1e-3)


def test_batches_are_of_like_size(seen):
    assert [len(x) for x in seen.maps] == [100, 100, 100]
    assert [[len(x) for x in view] for view in seen.views] == [[100, 100, 100]] * 2


def test_tokens_are_distinct_positions_drawn_by_the_seed_over_all_images(base, images):
    few, again, other = (look(base, images, 60, seed) for seed in (0, 0, 1))
    drawn = [position for one in few.positions for position in one.tolist()]
    assert len(drawn) == 60
    assert all(len(set(one.tolist())) == len(one) for one in few.positions)
    assert all(len(one) > 5 and one.max() >= 10 * 16 for one in few.positions)  # from all over a batch
    assert all(torch.equal(a, b) for a, b in zip(few.positions, again.positions, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(few.positions, other.positions, strict=False))
    assert len(few.tokens.features) == 60


def test_a_collapsed_head_has_no_scores(base, seen):
    head = make(base, {"mlp": {"depth": 1, "first_shortcut": False}})
    with torch.no_grad():
        head.stages[0].blocks[0].mlp.fc2.weight.zero_()
    with pytest.raises(InfeasibleHead, match="the head collapsed"):
        measure(head, seen)


def test_a_head_that_is_not_finite_has_no_scores(base, seen):
    head = make(base, {"mlp": {"depth": 1}})
    with torch.no_grad():
        head.stages[0].blocks[0].mlp.fc2.bias[3] = torch.inf
    with pytest.raises(InfeasibleHead, match="not finite"):
        measure(head, seen)


@pytest.mark.parametrize("family", FAMILIES)
def test_heads_that_begin_alike_give_what_each_gives_alone(base, seen, family, monkeypatch):
    built = []
    build = Block.build
    monkeypatch.setattr(Block, "build", lambda *arguments: built.append(arguments) or build(*arguments))
    shallow, deep = ({family: {"depth": depth, "first_shortcut": False}} for depth in (1, 3))
    stacks = [
        [{family: {"depth": 2}}, last] for last in ({"mixer": {"depth": 1}}, {"convnext": {"depth": 1}})
    ]
    heads = UntrainedHeads(base.info, [(seen, 5), (seen, 6)])
    for description, blocks in zip((shallow, deep, *stacks), (1, 2, 3, 1), strict=True):
        for place, seed in ((0, 5), (1, 6)):
            built.clear()
            maps = heads.run(parse_head(description), place)
            assert len(built) == blocks
            head = untrained(make(base, description, seed), torch.device("cpu"))
            with torch.no_grad():
                assert all(torch.equal(x, head(y)) for x, y in zip(maps, seen.inputs, strict=True))


def test_kept_maps_are_bounded(base, seen, monkeypatch):
    two = 2 * sum(x.numel() * x.element_size() for x in seen.inputs)
    monkeypatch.setattr("headsearch.scoring.zero_cost._KEPT_BYTES", two)
    heads = UntrainedHeads(base.info, [(seen, 0)])
    expected = UntrainedHeads(base.info, [(seen, 0)])
    for description in ({"mixer": {"depth": 3}}, {"mlp": {"depth": 1}}, {"mixer": {"depth": 2}}):
        maps = heads.run(parse_head(description), 0)
        assert heads._kept <= two
        assert heads._kept == sum(
            x.numel() * x.element_size() for kept in heads._passed.values() for x in kept.maps
        )
        monkeypatch.undo()
        whole = expected.run(parse_head(description), 0)
        monkeypatch.setattr("headsearch.scoring.zero_cost._KEPT_BYTES", two)
        assert all(map(torch.equal, maps, whole))


def test_a_worthless_base_is_told(images):
    torch.manual_seed(0)
    broken = load_base("vit_tiny_patch16_224", image_size=16, kwargs=KWARGS)
    assert look(broken, images[:40]).reason is None
    with torch.no_grad():
        broken.model.norm.weight.zero_()
    assert "the base collapsed" in (look(broken, images[:40]).reason or "")


def test_the_base_is_left_in_the_mode_it_was_in(base, images):
    base.train()
    look(base, images[:8])
    assert all(module.training for module in base.modules())
