"""Discrepancies against brute force, scipy and closed forms, and what they must not see."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from headsearch.scoring.discrepancy import (
    KINDS,
    MEASURES,
    Discrepancies,
    Measure,
    angular_procrustes,
    debiased_cka,
    mutual_knn,
)
from headsearch.scoring.features import Features

FUNCTIONS = [debiased_cka, mutual_knn, angular_procrustes]


def gaussian(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def discrepancies(features, device="cpu"):
    return Discrepancies(features, torch.device(device)).of(features)


def brute_force_hsic(x, y):
    """Song et al. 2012, the defining sums over tuples of distinct indices written with explicit n x n kernels."""
    n = len(x)
    kernel_x, kernel_y = x @ x.T, y @ y.T
    np.fill_diagonal(kernel_x, 0.0)
    np.fill_diagonal(kernel_y, 0.0)
    one = np.ones(n)
    return (
        np.trace(kernel_x @ kernel_y)
        + (one @ kernel_x @ one) * (one @ kernel_y @ one) / ((n - 1) * (n - 2))
        - 2 / (n - 2) * (one @ kernel_x @ kernel_y @ one)
    ) / (n * (n - 3))


def brute_force_cka(x, y):
    return brute_force_hsic(x, y) / math.sqrt(brute_force_hsic(x, x) * brute_force_hsic(y, y))


def biased_cka(x, y):
    x, y = x - x.mean(0), y - y.mean(0)
    return float((x.T @ y).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm()))


@pytest.mark.parametrize(
    ("n", "d", "e"), [(200, 5, 9), (12, 40, 30), (30, 80, 3)], ids=["features", "samples", "mixed"]
)
def test_cka_is_the_unbiased_hsic_ratio_in_either_space(n, d, e):
    x = gaussian(n, d, 0) + 3.0
    y = x[:, :1] * gaussian(1, e, 1) + gaussian(n, e, 2) * 0.7
    assert debiased_cka(x, y) == pytest.approx(brute_force_cka(x.numpy(), y.numpy()), abs=1e-10)


def test_hsic_is_the_mean_over_distinct_quadruples():
    # n = 4 has the 24 orderings of one quadruple: h = k12 (l12 + l34 - 2 l13), Song et al. 2012, equation 4.
    x, y = gaussian(4, 3, 0).numpy(), gaussian(4, 2, 1).numpy()
    kernel_x, kernel_y = x @ x.T, y @ y.T
    quadruples = [
        kernel_x[a, b] * (kernel_y[a, b] + kernel_y[c, d] - 2 * kernel_y[a, c])
        for a, b, c, d in permutations(range(4))
    ]
    assert brute_force_hsic(x, y) == pytest.approx(np.mean(quadruples))


@pytest.mark.parametrize("n", [64, 1024])
def test_independent_gaussians_fool_biased_cka_but_not_the_debiased_one(n):
    x, y = gaussian(n, 384, 0), gaussian(n, 384, 1)
    assert biased_cka(x, y) == pytest.approx(384 / (384 + n), abs=0.01)  # 0.86 and 0.27
    assert debiased_cka(x, y) == pytest.approx(0.0, abs=0.02)


def test_debiased_cka_of_few_samples_is_that_of_many_on_average():
    def sides(n, seed):
        x = gaussian(n, 16, seed)
        return x, x + gaussian(n, 16, 10_000 + seed)

    few = np.mean([debiased_cka(*sides(40, seed)) for seed in range(200)])
    # Population value: <Cxx, Cxx> / (|Cxx| |Cyy|) with Cxy = I, Cxx = I, Cyy = 2 I.
    assert few == pytest.approx(0.5, abs=0.02)
    assert debiased_cka(*sides(20_000, 1)) == pytest.approx(0.5, abs=0.01)


def test_mutual_knn_counts_common_neighbours_as_sklearn_finds_them():
    x = gaussian(1100, 6, 0)  # more than one chunk
    y = x[:, :4] + 0.5 * gaussian(1100, 4, 1)
    neighbours = [
        NearestNeighbors(n_neighbors=10).fit(side.numpy()).kneighbors(return_distance=False)
        for side in (x, y)
    ]
    common = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(*neighbours, strict=True)])
    assert 0.05 < common < 0.95
    assert mutual_knn(x, y, k=10) == pytest.approx(common)


def test_mutual_knn_of_unrelated_sides_is_chance():
    assert mutual_knn(gaussian(1000, 8, 0), gaussian(1000, 8, 1), k=50) == pytest.approx(50 / 999, abs=0.005)


@pytest.mark.parametrize(("n", "d", "e"), [(100, 6, 6), (20, 30, 30), (50, 4, 7), (8, 30, 5)])
def test_procrustes_is_the_angle_after_scipys_best_rotation(n, d, e):
    x, y = gaussian(n, d, 0), gaussian(n, e, 1)
    width = max(d, e)  # sides of unequal width are compared after padding with zeros
    a, b = (
        np.pad(side - side.mean(0), ((0, 0), (0, width - side.shape[1]))) for side in (x.numpy(), y.numpy())
    )
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    rotation, _ = scipy.linalg.orthogonal_procrustes(a, b)
    assert angular_procrustes(x, y) == pytest.approx(math.acos(np.sum((a @ rotation) * b)), abs=1e-9)


def test_procrustes_is_a_metric_on_a_triangle():
    x, y, z = (gaussian(60, 5, seed) for seed in range(3))
    assert angular_procrustes(x, z) <= angular_procrustes(x, y) + angular_procrustes(y, z)
    assert angular_procrustes(x, y) == pytest.approx(angular_procrustes(y, x))


@given(
    seed=st.integers(0, 10**6),
    n=st.integers(20, 60),
    d=st.integers(2, 12),
    scale=st.floats(1e-3, 1e3),
    shift=st.floats(-5, 5),
)
@pytest.mark.parametrize("measure", FUNCTIONS, ids=lambda f: f.__name__)
def test_rotation_scale_and_translation_change_nothing(measure, seed, n, d, scale, shift):
    x = gaussian(n, d, seed)
    y = x @ gaussian(d, 5, seed + 1) + 0.3 * gaussian(n, 5, seed + 2)
    rotation, _ = torch.linalg.qr(gaussian(d, d, seed + 3))
    assert measure(scale * x @ rotation + shift, y) == pytest.approx(measure(x, y), abs=1e-6)
    assert measure(y, scale * x @ rotation + shift) == pytest.approx(measure(y, x), abs=1e-6)


@given(seed=st.integers(0, 10**6), d=st.integers(2, 40), scale=st.floats(1e-2, 1e2))
def test_every_discrepancy_of_a_rotated_copy_is_zero(seed, d, scale):
    x = gaussian(30, d, seed)
    rotation, _ = torch.linalg.qr(gaussian(d, d, seed + 1))
    y = scale * x @ rotation - 1.0
    values = discrepancies(Features(x, y, y, x, y, y))
    assert tuple(values) == MEASURES
    assert list(values.values()) == pytest.approx([0.0] * 12, abs=1e-6)


def test_discrepancies_pair_base_with_head_and_with_change():
    base, head, change = gaussian(50, 4, 0), gaussian(50, 4, 1), gaussian(50, 4, 2)
    base_tokens, head_tokens, change_tokens = gaussian(80, 3, 3), gaussian(80, 3, 4), gaussian(80, 3, 5)
    values = discrepancies(Features(base, head, change, base_tokens, head_tokens, change_tokens))
    assert values["cka.embedding.output"] == 1.0 - debiased_cka(base, head)
    assert values["mutual_knn.embedding.change"] == 1.0 - mutual_knn(base, change)
    assert values["procrustes.tokens.output"] == angular_procrustes(base_tokens, head_tokens)
    assert values["cka.tokens.change"] == 1.0 - debiased_cka(base_tokens, change_tokens)


def test_what_is_needed_of_a_base_is_computed_once_for_all_heads():
    seen = []
    KINDS.add(Measure("counted", lambda x, y: float(len(x) + len(y)), lambda x_ND: seen.append(x_ND) or x_ND))
    base, *heads = (gaussian(50, 4, seed) for seed in range(4))
    from_base = Discrepancies(Features(base, base, base, base, base, base), torch.device("cpu"))
    for head in heads:
        values = from_base.of(Features(base, head, head, base, head, head))
        assert values == discrepancies(Features(base, head, head, base, head, head))
        assert values["counted.tokens.change"] == 100.0
    assert sum(x_ND is base for x_ND in seen) == 2 + 2 * len(heads)
    assert len(seen) == 2 + (4 + 6) * len(heads)


def test_a_measure_without_sides_is_given_the_features_themselves():
    given = []
    KINDS.add(Measure("looks", lambda *sides: given.append(sides) or 0.0))
    base, head, change = gaussian(50, 4, 0), gaussian(50, 4, 1), gaussian(50, 4, 2)
    discrepancies(Features(base, head, change, base, head, change))
    assert [y for _, y in given] == [head, change] * 2
    assert all(x is base for x, _ in given)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
def test_an_accelerator_measures_what_a_cpu_does():
    base, head, change = (gaussian(2000, 8, seed).float() for seed in range(3))
    features = Features(base, base + head, base + change, base, base + 3 * head, change)
    assert discrepancies(features, "cuda") == pytest.approx(discrepancies(features), abs=1e-4)


def test_without_a_head_there_is_no_discrepancy():
    x = gaussian(10, 4, 0)
    assert discrepancies(Features(x, None, None, x, None, None)) == {}


def test_what_is_undefined_is_left_out():
    x, constant = gaussian(50, 4, 0), torch.full((50, 4), 0.1)
    values = discrepancies(Features(x, x, constant, x, x, constant))
    assert set(values) == {name for name in MEASURES if name.endswith("output")}
    # 8 images: no 10 nearest neighbours; 3 images: no unbiased HSIC.
    values = discrepancies(Features(x[:8], x[:8], x[:8], x[:3], x[:3], x[:3]))
    assert {name for name in values if "output" in name} == {
        "cka.embedding.output",
        "procrustes.embedding.output",
        "procrustes.tokens.output",
    }


@pytest.mark.parametrize("measure", FUNCTIONS, ids=lambda f: f.__name__)
def test_a_large_offset_in_float32_does_not_drown_the_signal(measure):
    x = gaussian(200, 8, 0)
    y = x @ gaussian(8, 8, 1)
    assert measure((x + 100.0).float(), y.float()) == pytest.approx(measure(x, y), abs=2e-3)


@pytest.mark.parametrize("measure", FUNCTIONS, ids=lambda f: f.__name__)
def test_wrong_input_is_refused(measure):
    x = gaussian(30, 3, 0)
    with pytest.raises(ValueError, match=r"\(30, 3\) and \(29, 3\)"):
        measure(x, x[:29])
    broken = x.clone()
    broken[3, 1] = math.nan
    with pytest.raises(ValueError, match="finite"):
        measure(x, broken)
