"""Bases of several kinds in torchvision's RetinaNet: the same weights, finite losses, gradients; and a check that can fail."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from headsearch.base.model import load_base
from headsearch.evaluation.detection import DetectionBackbone, build_detector, check_detection
from headsearch.evaluation.spec import EvaluationSpec, evaluation_spec

TINY: dict[str, tuple[int, dict[str, Any], list[int]]] = {
    "vit_tiny_patch16_224": (32, {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}, [8]),
    "resnet10t": (64, {"channels": [8, 8, 16, 16]}, [2, 4, 8, 16, 32]),
    "convnext_atto": (64, {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]}, [4, 8, 16, 32]),
}


@pytest.fixture(scope="module")
def spec() -> EvaluationSpec:
    return evaluation_spec({"detection": {"steps": 2}})


@pytest.mark.parametrize("model", TINY)
def test_a_base_of_any_kind_becomes_a_detector_and_learns(model: str, spec: EvaluationSpec) -> None:
    size, kwargs, strides = TINY[model]
    base = load_base(model, image_size=size, kwargs=kwargs).eval()
    before = {name: value.clone() for name, value in base.state_dict().items()}
    backbone = build_detector(base, classes=3).backbone
    assert backbone.strides == strides
    levels = backbone(torch.zeros(2, 3, size, size))
    assert [tuple(x.shape[1:]) for x in levels.values()] == [
        (64, size // stride, size // stride) for stride in strides
    ]
    assert all(
        torch.equal(value, base.model.state_dict()[name])
        for name, value in backbone.model.state_dict().items()
    )
    check = check_detection(model, base, spec, torch.device("cpu"))
    assert check.passed
    assert len(check.losses) == 2
    assert check.tensors - 4 <= check.reached <= check.tensors
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())


def test_a_base_that_gradients_do_not_reach_fails(
    spec: EvaluationSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    size, kwargs, _ = TINY["vit_tiny_patch16_224"]
    base = load_base("vit_tiny_patch16_224", image_size=size, kwargs=kwargs)
    maps = DetectionBackbone._maps
    monkeypatch.setattr(
        DetectionBackbone, "_maps", lambda self, images: [x.detach() for x in maps(self, images)]
    )
    check = check_detection("cut", base, spec, torch.device("cpu"))
    assert check.reached == 0
    assert not check.passed


def test_a_loss_that_is_not_finite_fails(spec: EvaluationSpec) -> None:
    size, kwargs, _ = TINY["vit_tiny_patch16_224"]
    base = load_base("vit_tiny_patch16_224", image_size=size, kwargs=kwargs)
    with torch.no_grad():
        base.model.pos_embed.fill_(float("nan"))  # type: ignore[operator,union-attr]
    check = check_detection("broken", base, spec, torch.device("cpu"))
    assert not check.passed
    assert check.to_dict()["losses"] == [None, None]
