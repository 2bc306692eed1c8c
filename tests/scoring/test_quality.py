"""Measures of quality against brute force and closed forms, and what they must not see."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.integrate
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist, pdist
from sklearn.neighbors import NearestNeighbors

from headsearch.scoring.quality import QUALITIES, alignment, qualities, uniformity, view_retrieval


def gaussian(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def two_views(n=80, d=6, noise=0.8, seed=0):
    x = gaussian(n, d, seed)
    return x + noise * gaussian(n, d, seed + 1), 3.0 * (x + noise * gaussian(n, d, seed + 2))


def on_the_sphere(x):
    return x.numpy() / np.linalg.norm(x.numpy(), axis=1, keepdims=True)


def test_retrieval_finds_what_sklearn_finds():
    first, second = two_views(seed=6)
    hits = []
    for query, bank in ((first, second), (second, first)):
        nearest = NearestNeighbors(n_neighbors=1, metric="cosine").fit(bank.numpy())
        found = nearest.kneighbors(query.numpy(), return_distance=False)[:, 0]
        hits.append(np.mean(found == np.arange(len(query))))
    assert 0.05 < hits[0] < 0.9
    assert hits[0] != hits[1]  # the directions differ, so that leaving one out would show
    assert view_retrieval(first, second) == pytest.approx(100.0 * np.mean(hits))


def test_retrieval_of_the_same_is_certain_and_of_the_unrelated_or_constant_by_chance():
    x = gaussian(500, 16, 0)
    assert view_retrieval(x, 2.0 * x) == 100.0
    assert view_retrieval(x, gaussian(500, 16, 1)) == pytest.approx(0.2, abs=0.5)
    assert view_retrieval(torch.ones(500, 4), torch.ones(500, 4)) == pytest.approx(0.2)
    assert view_retrieval(torch.zeros(500, 4), torch.zeros(500, 4)) == pytest.approx(0.2)


def test_alignment_is_the_mean_squared_distance_on_the_sphere():
    first, second = two_views()
    distances = np.diag(cdist(on_the_sphere(first), on_the_sphere(second), metric="sqeuclidean"))
    assert alignment(first, second) == pytest.approx(distances.mean())
    assert alignment(first, 5.0 * first) == pytest.approx(0.0, abs=1e-12)
    assert alignment(first, -first) == pytest.approx(4.0)
    assert alignment(gaussian(5000, 32, 0), gaussian(5000, 32, 1)) == pytest.approx(2.0, abs=0.02)


def test_uniformity_is_the_log_mean_kernel_over_pairs():
    x, _ = two_views()
    kernel = np.exp(-2.0 * pdist(on_the_sphere(x), metric="sqeuclidean"))
    assert uniformity(x) == pytest.approx(math.log(kernel.mean()))
    assert uniformity(torch.ones(10, 3)) == pytest.approx(0.0)
    opposite = torch.tensor([[1.0, 0.0], [-3.0, 0.0]])
    assert uniformity(opposite) == pytest.approx(-8.0)


def test_uniformity_on_a_whole_sphere_is_that_of_the_integral():
    # On the 2-sphere the squared distance to a fixed point is 2 - 2t with t uniform on [-1, 1].
    mean, _ = scipy.integrate.quad(lambda t: 0.5 * math.exp(-2.0 * (2.0 - 2.0 * t)), -1.0, 1.0)
    assert uniformity(gaussian(4000, 3, 0)) == pytest.approx(math.log(mean), abs=0.02)


@given(seed=st.integers(0, 10**6), d=st.integers(2, 12), scale=st.floats(1e-3, 1e3))
def test_rotation_and_scale_change_nothing(seed, d, scale):
    first, second = two_views(n=30, d=d, seed=seed)
    rotation, _ = torch.linalg.qr(gaussian(d, d, seed + 3))
    turned = qualities("head", scale * first @ rotation, second @ rotation)
    assert turned == pytest.approx(qualities("head", first, second), abs=1e-9)


def test_qualities_are_named_after_what_they_are_of():
    first, second = two_views()
    values = qualities("base", first, second) | qualities("head", second, first)
    assert tuple(values) == QUALITIES
    assert values["retrieval.base"] == view_retrieval(first, second)
    assert values["alignment.base"] == alignment(first, second)
    assert values["uniformity.base"] == pytest.approx((uniformity(first) + uniformity(second)) / 2)


def test_what_is_undefined_is_left_out():
    one = gaussian(1, 4, 0)
    assert qualities("head", one, one) == {"alignment.head": 0.0}


@pytest.mark.parametrize("measure", [view_retrieval, alignment, lambda x, y: qualities("base", x, y)])
def test_wrong_input_is_refused(measure):
    x = gaussian(30, 3, 0)
    with pytest.raises(ValueError, match=r"\(30, 3\) and \(29, 3\)"):
        measure(x, x[:29])
    broken = x.clone()
    broken[3, 1] = math.nan
    with pytest.raises(ValueError, match="finite"):
        measure(x, broken)
    with pytest.raises(ValueError, match="finite"):
        uniformity(broken)
