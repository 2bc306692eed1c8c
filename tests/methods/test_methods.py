"""Every method's loss against a hand-written numpy version, its sizes, its schedule, and its errors."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightly.loss import DINOLoss
from numpy.typing import NDArray

from headsearch.errors import ExperimentError
from headsearch.methods import METHODS, build_method, check_method
from headsearch.methods.method import Method

Array = NDArray[np.float64]
IBOT = METHODS["ibot"].define()


def unit(x: Array) -> Array:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def log_softmax(x: Array) -> Array:
    shifted = x - x.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def draw(seed: int, rows: int = 6, columns: int = 5) -> tuple[Array, Array]:
    random = np.random.default_rng(seed)
    return random.normal(size=(rows, columns)), random.normal(size=(rows, columns))


def loss_of(name: str, student: Array, teacher: Array, **options: object) -> float:
    method = build_method(name, width=64, **options)
    (target,) = method.targets([torch.from_numpy(teacher)])
    return float(method.loss(torch.from_numpy(student), target))


@given(st.integers(0, 1000))
def test_mocov3_is_cross_entropy_over_the_batch_times_twice_the_temperature(seed: int) -> None:
    student, teacher = draw(seed)
    log_probability = log_softmax(unit(student) @ unit(teacher).T / 0.3)
    expected = -2 * 0.3 * np.diag(log_probability).mean()
    assert loss_of("mocov3", student, teacher, temperature=0.3) == pytest.approx(expected, rel=1e-9)


@given(st.integers(0, 1000))
def test_byol_is_the_mean_squared_distance_of_unit_vectors(seed: int) -> None:
    student, teacher = draw(seed)
    expected = ((unit(student) - unit(teacher)) ** 2).sum(axis=1).mean()
    assert loss_of("byol", student, teacher) == pytest.approx(expected, rel=1e-9)


@given(st.integers(0, 1000))
def test_simclr_lets_each_of_2b_embeddings_find_its_partner_among_the_others(seed: int) -> None:
    student, teacher = draw(seed)
    every = unit(np.concatenate([student, teacher]))
    similarity = every @ every.T / 0.4
    np.fill_diagonal(similarity, -np.inf)
    partner = np.roll(np.arange(12), 6)
    expected = -log_softmax(similarity)[np.arange(12), partner].mean()
    assert loss_of("simclr", student, teacher, temperature=0.4) == pytest.approx(expected, rel=1e-6)


def spread(z: Array) -> float:
    return float(np.maximum(0, 1 - np.sqrt(z.var(axis=0, ddof=1) + 1e-4)).mean())


def off_diagonal(matrix: Array) -> float:
    """Sum of the squares of everything beside the diagonal."""
    return float((matrix**2).sum() - (np.diag(matrix) ** 2).sum())


@given(st.integers(0, 1000))
def test_vicreg_is_invariance_variance_and_covariance(seed: int) -> None:
    student, teacher = draw(seed)
    expected = 7 * ((student - teacher) ** 2).mean()
    expected += 3 * (spread(student) + spread(teacher)) / 2
    expected += 2 * sum(off_diagonal(np.cov(z, rowvar=False)) for z in (student, teacher)) / 5
    options = {"invariance_weight": 7.0, "variance_weight": 3.0, "covariance_weight": 2.0}
    assert loss_of("vicreg", student, teacher, **options) == pytest.approx(expected, rel=1e-9)


def test_vicreg_of_a_case_by_hand() -> None:
    # Two images, two features. Student: variances 2 and 0, no covariance; teacher: both 2, covariance 2.
    student, teacher = np.array([[1.0, 0.0], [-1.0, 0.0]]), np.array([[1.0, 1.0], [-1.0, -1.0]])
    spread_of_student = (0 + 1 - np.sqrt(1e-4)) / 2
    expected = 25 * 2 / 4 + 25 * spread_of_student / 2 + 2 * 2**2 / 2
    assert loss_of("vicreg", student, teacher) == pytest.approx(expected, rel=1e-12)


@given(st.integers(0, 1000))
def test_barlow_wants_the_correlations_of_two_views_to_be_the_identity(seed: int) -> None:
    student, teacher = draw(seed)
    correlation = np.corrcoef(student, teacher, rowvar=False)[:5, 5:]
    expected = ((1 - np.diag(correlation)) ** 2).sum() + 0.3 * off_diagonal(correlation)
    assert loss_of("barlow", student, teacher, redundancy_weight=0.3) == pytest.approx(expected, rel=1e-4)


def test_barlow_of_a_case_by_hand() -> None:
    # The first feature agrees, the second is turned round, and neither says anything about the other.
    student = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    teacher = student * [1, -1]
    assert loss_of("barlow", student, teacher) == pytest.approx(4.0, rel=1e-4)


@pytest.mark.parametrize("name", ["simclr", "vicreg", "barlow"])
def test_both_orders_of_views_sum_to_the_gradient_without_a_teacher(name: str) -> None:
    first, second = (torch.from_numpy(x).requires_grad_() for x in draw(0))
    method = build_method(name, width=64)
    both = method.loss(first, second.detach()) + method.loss(second, first.detach())
    paired = torch.autograd.grad(both, [first, second])
    plain = torch.autograd.grad(method.loss(first, second), [first, second])
    for got, expected in zip(paired, plain, strict=True):
        torch.testing.assert_close(got, expected)


@given(st.integers(0, 1000))
def test_dino_is_cross_entropy_with_the_sharpened_and_centred_teacher(seed: int) -> None:
    student, teacher = draw(seed)
    center = np.linspace(-1, 1, 5)
    method = build_method("dino", width=64, output_dim=5, student_temperature=0.2)
    method.center.center = torch.from_numpy(center)[None]
    method.begin_step(epoch=10, epochs=10)
    (target,) = method.targets([torch.from_numpy(teacher)])
    assignment = np.exp(log_softmax((teacher - center) / 0.07))
    expected = -(assignment * log_softmax(student / 0.2)).sum(axis=1).mean()
    assert float(method.loss(torch.from_numpy(student), target)) == pytest.approx(expected, rel=1e-9)


def test_two_steps_of_dino_agree_with_lightlys_loss_and_centre() -> None:
    lightly = DINOLoss(5, teacher_temp=0.07)
    method = build_method("dino", width=64, output_dim=5, warmup_fraction=0)
    for seed in range(2):
        teacher = [torch.from_numpy(x).float() for x in draw(seed)]
        student = [torch.from_numpy(x).float() for x in draw(seed + 10)]
        method.begin_step(0, 10)
        targets = method.targets(teacher)
        mine = (method.loss(student[0], targets[1]) + method.loss(student[1], targets[0])) / 2
        torch.testing.assert_close(mine, lightly(teacher, student))
    torch.testing.assert_close(method.center.value, lightly.center[0])


def test_dinos_teacher_sharpens_ever_less_during_the_warm_up() -> None:
    method = build_method(
        "dino", width=64, warmup_teacher_temperature=0.02, teacher_temperature=0.06, warmup_fraction=0.5
    )
    seen = []
    for epoch in (0, 2.5, 5, 9):
        method.begin_step(epoch, 10)
        seen.append(method.teacher_temperature)
    assert seen == pytest.approx([0.02, 0.04, 0.06, 0.06])


@pytest.mark.parametrize(("epoch", "trained"), [(0.0, False), (1.9, False), (2.0, True)])
def test_dinos_prototypes_are_frozen_at_first(epoch: float, trained: bool) -> None:
    method = build_method("dino", width=8, freeze_last_layer=2.0)
    projector = method.projector(8)
    projector(torch.randn(4, 8)).sum().backward()
    method.after_backward([projector], epoch)
    assert (projector.last_layer.weight_v.grad is not None) is trained
    assert projector.layers[0].weight.grad is not None


@pytest.mark.parametrize("name", sorted(METHODS.keys() - {"simmim", "mae", "ijepa"}))
def test_all_projectors_of_a_method_end_in_the_same_size(name: str) -> None:
    method = build_method(name, width=32)
    outputs = [method.projector(in_dim)(torch.randn(4, in_dim)) for in_dim in (32, 48)]
    predictor = method.predictor()
    if predictor is not None:
        outputs.append(predictor(outputs[0]))
    assert {output.shape for output in outputs} == {(4, method.output_dim)}


@pytest.mark.parametrize(
    ("name", "width", "hidden", "output"),
    [
        ("mocov3", 16, 64, 64),
        ("mocov3", 384, 1536, 256),
        ("mocov3", 2048, 4096, 256),
        ("byol", 2048, 4096, 256),
        ("simclr", 2048, 2048, 128),
        ("vicreg", 16, 64, 64),
        ("vicreg", 4096, 8192, 8192),
        ("barlow", 4096, 8192, 8192),
        ("dino", 16, 64, 256),
        ("dino", 8192, 2048, 65536),
        ("dinov2", 16384, 2048, 131072),
        ("ibot", 8192, 2048, 8192),
    ],
)
def test_sizes_follow_the_base_up_to_the_papers_own(name: str, width: int, hidden: int, output: int) -> None:
    method = build_method(name, width=width)
    assert (method.hidden_dim, method.output_dim) == (hidden, output)
    chosen = build_method(name, width=width, hidden_dim=10, output_dim=12)
    assert (chosen.hidden_dim, chosen.output_dim) == (10, 12)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("moco", {}, "method.name: unknown method 'moco'; did you mean 'mocov3'?"),
        (
            "mocov3",
            {"temprature": 1},
            "method.kwargs: mocov3 has no option 'temprature'; did you mean 'temperature'?",
        ),
        (
            "byol",
            {"hidden_dim": "big"},
            "method.kwargs.hidden_dim: expected a valid integer, got 'big'",
        ),
        ("simclr", {"temperature": 0}, "method.kwargs.temperature: expected greater than 0, got 0"),
    ],
)
def test_mistakes_are_told_in_one_line(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ExperimentError) as error:
        check_method(name, options)
    assert str(error.value) == message


def test_options_are_checked_without_torch() -> None:
    code = (
        "import sys; from headsearch.methods import check_method; check_method('dino', {});"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("parts", "lacks"),
    [
        ({"hides": True}, "needs masks"),
        ({"hides": True, "masks": IBOT.masks}, "needs a patch_projector"),
        ({"hides": True, "masks": IBOT.masks, "patch_projector": IBOT.patch_projector}, "needs a patch_loss"),
        ({"hides": True, "masks": IBOT.masks, "compares_tokens": True}, None),
        (
            {
                "hides": True,
                "masks": IBOT.masks,
                "leaves_out": True,
                "patch_projector": IBOT.patch_projector,
                "patch_loss": IBOT.patch_loss,
            },
            "needs hides and compares_tokens",
        ),
        ({}, None),
    ],
)
def test_a_method_that_hides_positions_without_what_it_takes_cannot_be_defined(
    parts: dict[str, object], lacks: str | None
) -> None:
    if lacks is None:
        assert issubclass(type("Mine", (Method,), parts), Method)
    else:
        with pytest.raises(TypeError, match=f"^Mine .*{lacks}"):
            type("Mine", (Method,), parts)
