"""The loops of `examples/loops` have the losses that `headsearch.methods.hssl` has, under one seed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from headsearch.base.info import BaseInfo
from headsearch.base.model import BaseOutput, load_base
from headsearch.heads.build import build_head
from headsearch.heads.registry import parse_head
from headsearch.methods import build_method
from headsearch.methods.hssl import HSSL

FOLDER = Path(__file__).parents[2] / "examples" / "loops"
STEPS = 4
CONVNEXT = {"convnext": {"depth": 2, "first_shortcut": False}}
VIT = {"patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2}


class ResNet(nn.Module):
    """torchvision's as a base."""

    info = BaseInfo("resnet18", "resnet", 512, (1, 1), 512, 8, 0, 0, 16)

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(*list(resnet18().children())[:-2])

    def forward(self, images_BCHW: Tensor) -> BaseOutput:
        map_BCHW = self.model(images_BCHW)
        return BaseOutput(map_BCHW, map_BCHW.mean(dim=(2, 3)))


def vit() -> Any:
    return load_base("vit_tiny_patch16_224", image_size=16, kwargs=VIT)


DINO = {
    "hidden_dim": 128,
    "bottleneck_dim": 32,
    "output_dim": 256,
    "warmup_fraction": 0.0,
    "teacher_temperature": 0.04,
    "shared_prototypes": True,
}
LOOPS: dict[str, tuple[Callable[[], Any], object, str, dict[str, Any]]] = {
    "plain_torch": (vit, CONVNEXT, "byol", {"hidden_dim": 128, "output_dim": 64}),
    "lightly_dino": (vit, CONVNEXT, "dino", DINO),
    "lightning_module": (
        ResNet,
        {"vit": {"depth": 1, "first_shortcut": False}},
        "simclr",
        {"hidden_dim": 128, "output_dim": 32},
    ),
    "dinov2_style": (vit, CONVNEXT, "dino", {**DINO, "freeze_last_layer": 0.0}),
}


@pytest.fixture(autouse=True)
def double_precision(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """All numbers in double precision: what differs then is a mistake and no rounding."""
    monkeypatch.setattr(torch.Tensor, "float", lambda x: x.double())
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(autouse=True)
def examples(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Imports one of them, whose batches are small."""
    monkeypatch.syspath_prepend(str(FOLDER))
    digits = importlib.import_module("digits")
    monkeypatch.setattr(digits, "digit_views", partial(digits.digit_views, batch_size=16))
    yield importlib.import_module
    for name in ("digits", *LOOPS):
        sys.modules.pop(name, None)


def ours(
    views_of: Callable[[int], Iterator[list[Tensor]]], base: Any, head: object, method: str, options: Any
) -> tuple[HSSL, list[float]]:
    """The same training with our own pair, step by step."""
    torch.manual_seed(0)
    made = base()
    built = build_head(parse_head(head), made.info)
    pair = HSSL(made, [built], build_method(method, width=made.info.width, **options)).train()
    optimizer = torch.optim.AdamW(pair.student.parameters(), lr=1e-3)
    losses = []
    for step, views in enumerate(views_of(STEPS)):
        pair.begin_step(step / 10, 1)
        loss = pair.loss(views)
        optimizer.zero_grad()
        loss.backward()
        pair.after_backward(step / 10)
        optimizer.step()
        pair.update_teacher(0.99)
        losses.append(loss.item())
    return pair, losses


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name",
    [
        # Importing Lightning takes longer than all the rest.
        pytest.param(name, marks=pytest.mark.slow if name == "lightning_module" else ())
        for name in LOOPS
    ],
)
def test_a_loop_has_the_losses_of_our_own_and_leaves_no_trace_in_the_base(
    name: str, examples: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    backbone, losses = examples(name).train(STEPS)
    pair, expected = ours(examples("digits").digit_views, *LOOPS[name])
    assert losses == pytest.approx(expected, rel=1e-9)
    assert len({round(loss, 4) for loss in losses}) == STEPS, "the loss moves"
    assert all(file.name != "backbone.pt" for file in tmp_path.iterdir())
    plain = (
        nn.Sequential(*list(resnet18().children())[:-2])
        if name == "lightning_module"
        else timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=16, **VIT)
    )
    plain.load_state_dict(backbone.state_dict())
    for weight, own in zip(backbone.parameters(), pair.student.base.model.parameters(), strict=True):
        torch.testing.assert_close(weight, own)
