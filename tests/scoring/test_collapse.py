"""Collapse guards: closed forms, real collapses, and tiny healthy models that must pass."""

from __future__ import annotations

import math

import pytest
import timm
import torch
from sklearn.datasets import load_digits
from torch import nn

from headsearch.scoring.collapse import collapse_reason, isotropy_std, rankme


def gaussian(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def digits():
    images = torch.tensor(load_digits().images[:500], dtype=torch.float32)[:, None].repeat(1, 3, 1, 1)
    return nn.functional.interpolate((images - images.mean()) / images.std(), size=16)


def tiny_vit(seed):
    torch.manual_seed(seed)
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=4, embed_dim=64, depth=4, num_heads=4, num_classes=0
    )


def test_rankme_of_equal_singular_values_is_their_number():
    basis, _ = torch.linalg.qr(gaussian(40, 7))
    assert rankme(5.0 * basis) == pytest.approx(7.0, rel=1e-6)


def test_rankme_of_two_unequal_singular_values():
    # Shares 3/4 and 1/4: exp of the entropy is 4 / 3^(3/4).
    x = torch.zeros(5, 4)
    x[0, 0], x[1, 1] = 3.0, 1.0
    assert rankme(x) == pytest.approx(4 / 3**0.75)


def test_rankme_of_a_constant_is_one():
    assert rankme(torch.ones(20, 5)) == pytest.approx(1.0)
    assert rankme(torch.zeros(20, 5)) == 1.0


def test_isotropy_is_one_for_isotropic_and_zero_for_constant_embeddings():
    assert isotropy_std(gaussian(20_000, 32)) == pytest.approx(1.0, abs=0.01)
    assert isotropy_std(torch.ones(20, 8)) == pytest.approx(0.0, abs=1e-7)
    assert isotropy_std(1000.0 * gaussian(500, 8)) == pytest.approx(isotropy_std(gaussian(500, 8)))


@pytest.mark.parametrize("seed", range(3))
def test_a_tiny_base_at_random_initialisation_is_healthy(digits, seed):
    with torch.no_grad():
        embedding = tiny_vit(seed).eval()(digits)
    assert collapse_reason(5.0, embedding) is None
    assert collapse_reason(5.0, embedding, embedding) is None


def test_a_base_trained_only_to_agree_with_itself_is_found_collapsed(digits):
    model = tiny_vit(0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(30):
        images = digits[step % 4 * 64 :][:64]
        one, other = (
            nn.functional.normalize(model(images + 0.3 * torch.randn_like(images))) for _ in range(2)
        )
        centre = one.mean(dim=0, keepdim=True).detach()
        loss = -(one * other).sum(dim=1).mean() - (one * centre).sum(dim=1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        embedding = model.eval()(digits)
    reason = collapse_reason(loss.item(), embedding)
    assert reason is not None
    assert reason.startswith("the base collapsed")


def test_few_images_and_few_features_are_not_mistaken_for_collapse():
    assert collapse_reason(1.0, gaussian(2, 64)) is None
    assert collapse_reason(1.0, gaussian(500, 2)) is None


def test_a_common_offset_is_harmless():
    assert collapse_reason(1.0, gaussian(500, 64) + 5.0) is None


def test_reasons_name_the_part_and_the_trouble():
    healthy = gaussian(100, 16)
    constant = gaussian(1, 16) + 1e-5 * healthy
    line = gaussian(1, 16, 1) + gaussian(100, 1, 2) * gaussian(1, 16, 3)
    broken = healthy.clone()
    broken[0, 0] = math.inf
    assert collapse_reason(math.nan, healthy) == "the loss is not finite (nan)"
    assert collapse_reason(1.0, healthy, broken) == "the head's embeddings are not finite"
    assert "the head collapsed: its embeddings hardly differ" in (
        collapse_reason(1.0, healthy, constant) or ""
    )
    assert "the base collapsed: its embeddings differ along one direction" in (
        collapse_reason(1.0, line) or ""
    )
