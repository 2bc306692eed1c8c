"""Several ranks train as one does: the same batches and views, one gradient, one centre, one batch for norms and negatives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from batch_norm import synchronise_on_cpu, synchronised_on_cpu
from processes import in_ranks
from safetensors.torch import load_file
from torch import Tensor, nn

from headsearch.errors import ExperimentError, RunError
from headsearch.methods import METHODS
from headsearch.methods.collectives import average_gradients, gather, rank, sum_over_ranks
from headsearch.pretrain import PretrainResult, PretrainSpec, pretrain
from headsearch.pretrain.observer import PretrainObserver
from headsearch.pretrain.prepare import prepare
from headsearch.pretrain.run import PretrainRun
from headsearch.testing.pretraining import SMALL_VIT, small_spec
from headsearch.training.ranks import ranks

STEPS = 4
TINY_RESNET = {"channels": [8, 8, 16, 16]}


def losses_in_double(spec: PretrainSpec, out: Path) -> list[float]:
    """The losses of the first steps, all numbers in double precision: what differs then is a mistake and no rounding."""
    keep_precision = lambda x: x  # noqa: E731
    torch.Tensor.float = keep_precision  # type: ignore[method-assign]
    synchronise_on_cpu()
    with ranks("cpu") as place:
        setup = prepare(spec, place)
        trainer = setup.trainer
        trainer.hssl.double()
        run = PretrainRun(spec, out, setup, place, PretrainObserver())
        images = setup.images.read([torch.cat([torch.arange(32)[rows] for rows in run._rows()])])
        batch = next(iter(images))
        losses = []
        for step in range(STEPS):
            parts = (([view.double() for view in views], masks) for views, masks in run._parts(batch, step))
            loss = trainer.step_in_parts(parts, spec.recipe.accumulate, step)
            losses.append(float(sum_over_ranks(loss)) / (1 if not torch.distributed.is_initialized() else 2))
        return losses


@pytest.mark.parametrize("method", METHODS)
def test_two_ranks_take_the_steps_of_one(images: Path, tmp_path: Path, method: str) -> None:
    spec = small_spec(images, "recipe.learning_rate=3e-3", method=method)
    first, second = in_ranks(2, losses_in_double, spec, tmp_path)
    (alone,) = in_ranks(1, losses_in_double, spec, tmp_path)
    assert first == second
    assert first == pytest.approx(alone, rel=1e-9)
    assert len({round(loss, 6) for loss in alone}) == STEPS, "the loss moves"


def test_a_base_with_batch_norms_and_parts_of_batches_are_shared_too(images: Path, tmp_path: Path) -> None:
    spec = small_spec(images, "recipe.accumulate=2", model="resnet10t", kwargs=TINY_RESNET)
    first, _ = in_ranks(2, losses_in_double, spec, tmp_path)
    (alone,) = in_ranks(1, losses_in_double, spec, tmp_path)
    assert first == pytest.approx(alone, rel=1e-9)


def train(spec: PretrainSpec, out: Path, resume: bool) -> PretrainResult:
    synchronise_on_cpu()
    return pretrain(spec, out, resume=resume)


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_a_whole_pretraining_on_two_ranks_has_the_loss_curve_of_one(images: Path, tmp_path: Path) -> None:
    spec = small_spec(images, "recipe.epochs=4")
    result, other = in_ranks(2, train, spec, tmp_path / "two", False)
    assert result == other
    assert (tmp_path / "two" / "README.md").exists()
    pretrain(spec, tmp_path / "one")
    # Rounding in single precision, which Adam makes larger where gradients are tiny.
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-3)


def test_a_training_goes_on_with_another_number_of_ranks(images: Path, tmp_path: Path) -> None:
    spec = small_spec(images, "recipe.epochs=4")
    pretrain(spec, tmp_path / "one")
    out = tmp_path / "changing"
    in_ranks(2, train, spec, out, False)
    # As it was after the second epoch of four.
    for path in (out / "checkpoints").iterdir():
        if not path.stem.startswith(f"{9:09}-"):
            path.unlink()
    pretrain(spec, out, resume=True)
    assert losses(out) == pytest.approx(losses(tmp_path / "one"), rel=1e-3)
    max((out / "checkpoints").iterdir()).unlink()
    in_ranks(2, train, spec, out, True)
    assert losses(out) == pytest.approx(losses(tmp_path / "one"), rel=1e-3)
    weights = [load_file(folder / "base.safetensors") for folder in (out, tmp_path / "one")]
    assert weights[0].keys() == weights[1].keys()


def test_mistakes_are_raised_by_every_rank(images: Path, tmp_path: Path) -> None:
    for error in in_ranks(2, train, small_spec(images, "recipe.batch_size=33"), tmp_path / "out", False):
        assert isinstance(error, ExperimentError)
        assert "recipe.batch_size (33) must divide by ranks" in str(error)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    for error in in_ranks(2, train, small_spec(images), tmp_path / "taken", False):
        assert isinstance(error, RunError)
        assert "add --resume" in str(error)


def collective_results() -> list[list[float]]:
    with ranks("cpu"):
        own = torch.arange(6.0).view(3, 2)[rank() * 1 : rank() + 2].clone().requires_grad_()
        everyone = gather(own)
        (everyone * (1 + rank()) * torch.arange(8.0).view(4, 2)).sum().backward()
        assert own.grad is not None
        parameters = [
            nn.Parameter(torch.zeros(3)),
            nn.Parameter(torch.zeros(2, 2)),
            nn.Parameter(torch.zeros(1)),
        ]
        parameters[0].grad = torch.full((3,), float(rank()))
        parameters[1].grad = torch.arange(4.0).view(2, 2) * rank()
        average_gradients(parameters)
        assert parameters[2].grad is None
        grads = torch.cat(
            [parameter.grad.flatten() for parameter in parameters if parameter.grad is not None]
        )
        return [values.tolist() for values in (everyone, own.grad, grads)]


def test_gathering_and_averaging() -> None:
    for number, (everyone, gradient, averaged) in enumerate(in_ranks(2, collective_results)):
        assert everyone == [[0, 1], [2, 3], [2, 3], [4, 5]]
        # Both ranks' losses, with factors 1 and 2, reach the rows that this rank gave.
        assert gradient == (3 * torch.arange(8.0).view(4, 2)[2 * number : 2 * number + 2]).tolist()
        assert averaged == [0.5, 0.5, 0.5, 0.0, 0.5, 1.0, 1.5]


def normalised(values: list[float]) -> list[list[float]]:
    x = torch.tensor(values)
    with ranks("cpu"):
        norm = synchronised_on_cpu(nn.BatchNorm2d(3))
        own = x.chunk(2)[rank()].clone().requires_grad_()
        output = norm(own)
        (output * torch.linspace(0, 1, x.numel()).view_as(x).chunk(2)[rank()]).sum().backward()
        assert own.grad is not None
        assert isinstance(norm.running_var, Tensor)
        return [values.tolist() for values in (output, own.grad, norm.running_var)]


def test_batch_norm_over_ranks_is_torchs_over_the_whole_batch() -> None:
    x = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 3 + 1
    outputs, gradients, variances = zip(*in_ranks(2, normalised, x.tolist()), strict=True)
    norm, whole = nn.BatchNorm2d(3), x.clone().requires_grad_()
    expected = norm(whole)
    (expected * torch.linspace(0, 1, x.numel()).view_as(x)).sum().backward()
    torch.testing.assert_close(torch.tensor(outputs).flatten(0, 1), expected)
    torch.testing.assert_close(torch.tensor(gradients).flatten(0, 1), whole.grad)
    torch.testing.assert_close(torch.tensor(variances[0]), norm.running_var)


def test_views_of_some_rows_are_those_of_the_whole_batch(images: Path) -> None:
    spec = small_spec(
        images,
        "data.augmentation={blur: [0.5, 0.5], solarize: [0.5, 0.5], local_crops: 1, local_size: 8}",
        kwargs={**SMALL_VIT, "dynamic_img_size": True},
        method="dino",
    )
    with ranks("cpu") as place:
        setup = prepare(spec, place)
    batch = next(iter(setup.images.read([torch.arange(32)])))
    seeded = lambda: torch.Generator().manual_seed(1)  # noqa: E731
    whole = setup.views(batch, seeded(), "cpu")
    rows = slice(8, 24)
    some = setup.views(batch[rows], seeded(), "cpu", rows=rows, batch_size=32)
    for view, expected in zip(some, whole, strict=True):
        torch.testing.assert_close(view, expected[rows])
