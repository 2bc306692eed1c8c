"""Extraction on a real base and a real head: what is extracted, and what is left as it was."""

from __future__ import annotations

import pytest
import torch

from headsearch.base.model import load_base
from headsearch.heads import parse_head
from headsearch.heads.build import build_head
from headsearch.scoring.features import extract_embeddings, extract_features, extract_view_embeddings

KWARGS = {"img_size": 16, "patch_size": 4, "embed_dim": 64, "depth": 2, "num_heads": 4}


@pytest.fixture(scope="module")
def base():
    torch.manual_seed(0)
    return load_base("vit_tiny_patch16_224", image_size=16, kwargs=KWARGS)


@pytest.fixture(scope="module")
def head(base):
    torch.manual_seed(1)
    return build_head(parse_head({"convnext": {"depth": 1, "drop_path": 0.5}}), base.info)


@pytest.fixture(scope="module")
def images():
    return torch.randint(
        0, 256, (20, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def prepare(images):
    return images.float() / 127.5 - 1.0


def test_features_are_those_of_the_definition(base, head, images):
    base.eval(), head.eval()
    with torch.no_grad():
        output = base(prepare(images))
        head_map = head(output.map)
        change = (head_map - output.map).mean(dim=(2, 3))
        change = (change - change.mean(1, keepdim=True)) / (
            change.var(1, correction=0, keepdim=True) + 1e-6
        ).sqrt()
    [features] = extract_features(base, [head], [images], prepare=prepare, max_tokens=10_000, seed=0)
    torch.testing.assert_close(features.base_embedding, output.embedding)
    torch.testing.assert_close(features.head_embedding, head.norm(head_map.mean(dim=(2, 3))))
    torch.testing.assert_close(features.change_embedding, change)
    # All 20 * 16 positions fit: image by image, row by row.
    tokens = output.map.permute(0, 2, 3, 1).reshape(320, 64)
    head_tokens = head_map.permute(0, 2, 3, 1).reshape(320, 64)
    torch.testing.assert_close(features.base_tokens, tokens)
    torch.testing.assert_close(features.head_tokens, head_tokens)
    torch.testing.assert_close(features.change_tokens, head_tokens - tokens)


def test_sampled_tokens_are_distinct_positions_the_same_for_base_and_head(base, head, images):
    [everything] = extract_features(base, [head], [images], prepare=prepare, max_tokens=320, seed=0)
    [sample] = extract_features(base, [head], [images], prepare=prepare, max_tokens=50, seed=0)
    positions = torch.cdist(sample.base_tokens.double(), everything.base_tokens.double()).argmin(dim=1)
    assert len(set(positions.tolist())) == 50
    torch.testing.assert_close(sample.base_tokens, everything.base_tokens[positions])
    torch.testing.assert_close(sample.head_tokens, everything.head_tokens[positions])
    torch.testing.assert_close(sample.change_tokens, everything.change_tokens[positions])


def test_the_sample_depends_on_the_seed_and_not_on_the_batch_size(base, head, images):
    def sample(batches, seed):
        [features] = extract_features(base, [head], batches, prepare=prepare, max_tokens=50, seed=seed)
        return features

    one = sample([images], 0)
    many = sample(images.split(3), 0)
    torch.testing.assert_close(many.head_tokens, one.head_tokens, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(many.head_embedding, one.head_embedding, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(sample([images], 1).base_tokens, one.base_tokens)


def test_every_position_is_as_likely_to_be_drawn(base, images):
    [features] = extract_features(base, [], [images], prepare=prepare, max_tokens=320, seed=0)
    everything = features.base_tokens.double()
    counts = torch.zeros(320)
    for seed in range(60):
        [sample] = extract_features(base, [], images.split(7), prepare=prepare, max_tokens=64, seed=seed)
        counts[torch.cdist(sample.base_tokens.double(), everything).argmin(dim=1)] += 1
    # Drawn with probability 1/5: mean 12, variance 60 * 0.16 = 9.6 per position.
    assert counts.sum() == 60 * 64
    chi_square = float(((counts - 12.0) ** 2 / 9.6).sum())
    assert abs(chi_square - 320) < 5 * (2 * 320) ** 0.5


def test_several_heads_are_looked_at_in_one_pass_of_the_base(base, head, images):
    torch.manual_seed(3)
    other = build_head(parse_head({"mixer": {"depth": 1}}), base.info)
    passes: list[int] = []
    hook = base.register_forward_hook(lambda *_: passes.append(1))
    together = extract_features(base, [head, other], [images], prepare=prepare, max_tokens=50, seed=0)
    hook.remove()
    assert len(passes) == 1
    for single, features in zip([head, other], together, strict=True):
        [alone] = extract_features(base, [single], [images], prepare=prepare, max_tokens=50, seed=0)
        for name, tensor in vars(alone).items():
            torch.testing.assert_close(vars(features)[name], tensor)


def test_without_a_head_only_the_base_is_there(base, images):
    [features] = extract_features(base, [], [images], prepare=prepare, max_tokens=8, seed=0)
    assert features.head_embedding is None
    assert features.change_embedding is None
    assert features.head_tokens is None
    assert features.change_tokens is None
    assert features.base_tokens.shape == (8, 64)


def test_modes_are_restored_module_by_module_even_after_an_error(base, head, images):
    base.train(), head.train()
    base.model.blocks[0].eval()
    before = [module.training for part in (base, head) for module in part.modules()]

    def failing(_):
        assert not any(module.training for part in (base, head) for module in part.modules())
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        extract_features(base, [head], [images], prepare=failing, seed=0)
    assert [module.training for part in (base, head) for module in part.modules()] == before
    extract_features(base, [head], [images], prepare=prepare, seed=0)
    assert [module.training for part in (base, head) for module in part.modules()] == before


def test_features_carry_no_gradients_and_are_float32(base, head, images):
    [features] = extract_features(base, [head], [images], prepare=lambda x: prepare(x), seed=0)
    for tensor in vars(features).values():
        assert not tensor.requires_grad
        assert tensor.dtype == torch.float32


def test_embeddings_alone_are_the_same(base, images):
    [expected] = extract_features(base, [], [images], prepare=prepare, seed=0)
    actual = extract_embeddings(base, images.split(6), prepare=prepare)
    torch.testing.assert_close(actual, expected.base_embedding, rtol=1e-4, atol=1e-5)


def test_no_images_is_an_error(base):
    with pytest.raises(ValueError, match="no images"):
        extract_features(base, [], [], prepare=prepare, seed=0)
    with pytest.raises(ValueError, match="no images"):
        extract_embeddings(base, [], prepare=prepare)


def test_embeddings_of_two_views_are_those_of_each_view_on_its_own(base, head, images):
    torch.manual_seed(3)
    other = build_head(parse_head({"mixer": {"depth": 1}}), base.info)

    def views(batch):
        return [prepare(batch), prepare(255 - batch), prepare(batch.flip(3))]

    passes: list[int] = []
    hook = base.register_forward_hook(lambda *_: passes.append(1))
    found = extract_view_embeddings(base, [head, other], images.split(8), views=views)
    hook.remove()
    assert len(passes) == 3 * 2  # batches, views; a third view is left alone
    for number, pixels in enumerate((images, 255 - images)):
        [alone] = extract_features(base, [head], [pixels], prepare=prepare, seed=0)
        [of_other] = extract_features(base, [other], [pixels], prepare=prepare, seed=0)
        torch.testing.assert_close(found.base[number], alone.base_embedding, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.heads[0][number], alone.head_embedding, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.heads[1][number], of_other.head_embedding, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="no images"):
        extract_view_embeddings(base, [], [], views=views)
