"""Label-free measures against closed forms, and against scikit-dimension, lightly, scipy and numpy."""

import math

import numpy as np
import pytest
import scipy
import torch
from lightly.loss.hypersphere_loss import HypersphereLoss
from sklearn.datasets import load_digits

from headsearch.scoring.label_free import alpha_req, lidar, twonn, verdict_of_health, wasserstein_uniformity
from headsearch.scoring.quality import alignment, uniformity


def with_spectrum(values: torch.Tensor, count: int = 200) -> torch.Tensor:
    """Centred embeddings whose covariance has exactly these eigenvalues, up to a factor."""
    random = torch.randn(count, len(values), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    q, _ = torch.linalg.qr(random - random.mean(dim=0))
    return q * values.sqrt()


def some_views(count: int = 4) -> torch.Tensor:
    """Views (V, N, D) of images that differ more than they do."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(80, 12, generator=generator, dtype=torch.float64) * torch.linspace(0.2, 2, 12)
    return images + 0.3 * torch.randn(count, 80, 12, generator=generator, dtype=torch.float64)


def test_alignment_and_uniformity_are_lightlys() -> None:
    first, second = some_views(2)
    alone, both = HypersphereLoss(t=2, lam=0), HypersphereLoss(t=2, lam=1)
    assert alignment(first, second) == pytest.approx(float(alone(first, second)))
    assert uniformity(first) == pytest.approx(float(both(first, first)))


def test_lidar_is_that_of_the_generalised_eigenvalues() -> None:
    views = some_views().numpy()
    within = (views - views.mean(axis=0)).reshape(-1, 12)
    values = scipy.linalg.eigh(
        np.cov(views.mean(axis=0), rowvar=False),
        within.T @ within / (80 * 3) + 1e-4 * np.eye(12),
        eigvals_only=True,
    )
    expected = np.exp(scipy.stats.entropy(values))
    assert lidar(torch.from_numpy(views)) == pytest.approx(expected, rel=1e-9)


def test_alpha_req_is_numpys_weighted_line() -> None:
    x = torch.randn(300, 60, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 61) ** -0.8
    values = np.linalg.eigvalsh(np.cov(x.double().numpy(), rowvar=False))[::-1]
    ranks = np.arange(5, 51)
    slope, _ = np.polyfit(np.log(ranks), np.log(values[4:50]), 1, w=ranks**-0.5)
    assert alpha_req(x) == pytest.approx(-slope, rel=1e-9)


@pytest.mark.parametrize("alpha", [0.0, 0.7, 1.0, 2.5])
def test_a_power_law_has_its_exponent(alpha: float) -> None:
    x = with_spectrum(torch.arange(1, 61, dtype=torch.float64) ** -alpha)
    assert alpha_req(3.0 * x + 7.0) == pytest.approx(alpha, abs=1e-6)
    assert math.isnan(alpha_req(torch.ones(20, 60)))


def test_twonn_is_that_of_scikit_dimension_on_digits() -> None:
    x = torch.from_numpy(load_digits().data[:600])
    assert twonn(x) == pytest.approx(
        7.85860516034925, rel=1e-6
    )  # skdim.id.TwoNN(discard_fraction=0.1), 0.5.0


def test_twonn_finds_the_dimension_of_a_plane_in_many() -> None:
    flat = torch.rand(2000, 2, generator=torch.Generator().manual_seed(0)) @ torch.randn(2, 30)
    assert twonn(flat) == pytest.approx(2.0, abs=0.2)
    assert math.isnan(twonn(torch.ones(50, 3)))


def test_wasserstein_is_0_for_the_uniform_and_sqrt_2_for_one_point() -> None:
    corners = torch.cat([torch.eye(16), -torch.eye(16)])
    assert wasserstein_uniformity(corners) == pytest.approx(0.0, abs=1e-6)
    assert wasserstein_uniformity(torch.ones(9, 16)) == pytest.approx(math.sqrt(2))
    half = torch.nn.functional.pad(torch.cat([torch.eye(8), -torch.eye(8)]), (0, 8))
    assert wasserstein_uniformity(half) == pytest.approx(math.sqrt(2 - 2 * math.sqrt(0.5)))


def test_lidar_counts_the_directions_that_tell_images_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    images = with_spectrum(torch.ones(6, dtype=torch.float64))
    noise = 1e-3 * torch.randn(10, len(images), 12, generator=generator, dtype=torch.float64)
    views = torch.nn.functional.pad(images, (0, 6)).expand(10, -1, -1) + noise
    assert lidar(views) == pytest.approx(6.0, rel=0.05)
    noisy_in_one = views.clone()
    noisy_in_one[:, :, 0] += 100 * torch.randn(10, len(images), generator=generator, dtype=torch.float64)
    assert lidar(noisy_in_one) == pytest.approx(5.0, rel=0.15)
    assert lidar(torch.ones(2, 5, 3)) == 1.0


def test_the_verdict_says_collapsed_collapsing_or_healthy() -> None:
    assert verdict_of_health(1.0, "the base collapsed", None).startswith("collapsed: the base")
    assert verdict_of_health(4.0, None, 9.0).startswith("collapsing: the effective rank fell from 9.0 to 4.0")
    assert verdict_of_health(8.0, None, 9.0).startswith("healthy")
