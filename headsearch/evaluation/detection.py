"""Whether a detector can be trained on the base: a check, not a score.

The weights become the backbone of torchvision's RetinaNet (Lin et al., ICCV 2017) over a feature pyramid, which is trained for a few steps on
one batch of noise with random boxes. What is looked at: that the loss is finite, and that gradients reach the base.
"""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork

from headsearch.base.model import Base
from headsearch.base.own import OwnBase
from headsearch.errors import BaseModelError
from headsearch.evaluation.spec import EvaluationSpec
from headsearch.training.devices import generators_kept
from headsearch.training.seeds import derived_seed

_CHANNELS = 64
"""Width of the pyramid."""
_IMAGES, _BOXES, _CLASSES = 2, 2, 3
_LEARNING_RATE = 1e-3


class DetectionBackbone(nn.Module):
    """A timm model as torchvision's detectors want it: images in, an `OrderedDict` of maps of one width out, one for each resolution.

    The maps are the last ones that the model makes at each of its resolutions: four for most convolutional and hierarchical
    models, one for a ViT.
    """

    def __init__(
        self, model: nn.Module, image_size: int, *, in_channels: int = 3, channels: int = _CHANNELS
    ) -> None:
        """`model` has `forward_intermediates`, as `Base.model` does; images are square, `image_size` pixels wide, of so many `in_channels`."""
        super().__init__()
        self.model = model
        self.out_channels = channels
        device = next(model.parameters()).device
        was_training = model.training
        model.eval()
        with torch.no_grad():
            maps = self._maps(torch.zeros(1, in_channels, image_size, image_size, device=device))
        model.train(was_training)
        last = {(height, width): index for index, (_, _, height, width) in enumerate(x.shape for x in maps)}
        self.indices = sorted(last.values())
        self.pyramid = FeaturePyramidNetwork([maps[index].shape[1] for index in self.indices], channels)
        self.strides = [image_size // maps[index].shape[-1] for index in self.indices]

    def forward(self, images_BCHW: Tensor) -> OrderedDict[str, Tensor]:
        """The pyramid's levels, finest first."""
        maps = self._maps(images_BCHW)
        chosen = OrderedDict((str(level), maps[index]) for level, index in enumerate(self.indices))
        levels: OrderedDict[str, Tensor] = self.pyramid(chosen)
        return levels

    def _maps(self, images_BCHW: Tensor) -> list[Tensor]:
        model: Any = self.model
        maps: list[Tensor] = model.forward_intermediates(
            images_BCHW, norm=False, output_fmt="NCHW", intermediates_only=True
        )
        return maps


@dataclass(frozen=True)
class DetectionCheck:
    """What the check found for one set of weights."""

    weights: str
    losses: tuple[float, ...]
    """At each step."""
    reached: int
    """How many of the base's weight tensors got a nonzero gradient."""
    tensors: int
    """How many weight tensors it has. Its final norm gets no gradient, since a detector takes the maps before it."""

    @property
    def passed(self) -> bool:
        """Whether a detector can learn on this base."""
        return all(map(math.isfinite, self.losses)) and self.reached > self.tensors // 2

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; a loss that is not finite is null."""
        losses = [loss if math.isfinite(loss) else None for loss in self.losses]
        return asdict(self) | {"losses": losses, "passed": self.passed}


def build_detector(base: Base, *, classes: int) -> RetinaNet:
    """RetinaNet with a copy of the base, for images of the base's size with values from 0 to 1."""
    size = base.info.image_size
    if isinstance(base.model, OwnBase):
        raise BaseModelError(
            f"{base.info.model}: detection needs several feature maps of a timm model; leave out that probe"
        )
    seen = base.info.channels
    backbone = DetectionBackbone(copy.deepcopy(base.model).requires_grad_(True), size, in_channels=seen)
    anchors = AnchorGenerator(
        sizes=tuple((2 * stride, 4 * stride) for stride in backbone.strides),
        aspect_ratios=((0.5, 1.0, 2.0),) * len(backbone.strides),
    )
    # The size is the base's own at every step: torchvision would else enlarge the images and pad them to a multiple of 32.
    return RetinaNet(
        backbone,
        classes,
        min_size=size,
        max_size=size,
        anchor_generator=anchors,
        image_mean=[0.5] * seen,
        image_std=[0.25] * seen,
        size_divisible=1,
    )


def check_detection(name: str, base: Base, spec: EvaluationSpec, device: torch.device) -> DetectionCheck:
    """Train a detector on the base for a few steps and look at loss and gradients."""
    with generators_kept(device):
        torch.manual_seed(derived_seed(spec.seed, "detection"))
        detector = build_detector(base, classes=_CLASSES).to(device).train()
        images, targets = _scenes(base.info.image_size, base.info.channels, device)
        weights = list(detector.backbone.model.parameters())
        optimizer = torch.optim.AdamW(detector.parameters(), lr=_LEARNING_RATE)
        losses = []
        for _ in range(spec.detection.steps):
            loss = torch.stack(list(detector(images, targets).values())).sum()
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
            losses.append(float(loss.detach()))
    reached = sum(weight.grad is not None and bool(weight.grad.any()) for weight in weights)
    return DetectionCheck(name, tuple(losses), reached, len(weights))


def _scenes(size: int, channels: int, device: torch.device) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Images of noise with boxes from an eighth to a half of their size, bright inside."""
    images, targets = [], []
    for _ in range(_IMAGES):
        image = 0.5 * torch.rand(channels, size, size)
        sides = (size * (0.125 + 0.375 * torch.rand(_BOXES, 2))).round().clamp_min(2)
        corners = ((size - sides) * torch.rand(_BOXES, 2)).floor()
        boxes = torch.cat([corners, corners + sides], dim=1)
        for left, top, right, bottom in boxes.int().tolist():
            image[:, top:bottom, left:right] += 0.5
        images.append(image.to(device))
        labels = torch.randint(1, _CLASSES, (_BOXES,))
        targets.append({"boxes": boxes.to(device), "labels": labels.to(device)})
    return images, targets
