"""Semantic segmentation by a linear layer on the frozen base's last feature map, as in DINOv2 (Oquab et al., arXiv 2304.07193, section 7.4).

The map, before the base's final norm, is standardised by train's mean and deviation, classified at every position, and the logits are
enlarged to the image. The layer starts at zero and its loss is convex, so one training is enough: the interval is over test images.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from headsearch.data.segmentation import IGNORED, MaskedDataset, MaskedImages
from headsearch.errors import BaseModelError
from headsearch.evaluation.intervals import Outcome
from headsearch.evaluation.spec import EvaluationSpec
from headsearch.evaluation.subject import Loaded
from headsearch.training.schedules import learning_rate
from headsearch.training.seeds import derived_generator

Masked = Loaded[MaskedDataset]

Counts = NDArray[np.int64]
"""Pixels, by image or class."""


def segmentation(subject: Masked, spec: EvaluationSpec) -> dict[str, Outcome]:
    """Mean IoU on the test images, in percent. Raises `BaseModelError` where a feature is not finite."""
    train_NCHW = _maps(subject, subject.dataset.train)
    deviation_C, mean_C = torch.std_mean(train_NCHW.double(), dim=(0, 2, 3), correction=0)
    scale_C = torch.where(deviation_C > 0, deviation_C, 1.0)

    def standardised(map_BCHW: Tensor) -> Tensor:
        whole = (map_BCHW.double() - mean_C[:, None, None]) / scale_C[:, None, None]
        return whole.float().to(subject.device)

    layer = nn.Conv2d(train_NCHW.shape[1], len(subject.dataset.classes), 1).to(subject.device)
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    _train(layer, train_NCHW, subject.dataset.train.masks, standardised, spec)
    intersection, union = _test(layer, _maps(subject, subject.dataset.test), standardised, subject)
    score = mean_iou(intersection.sum(axis=0), union.sum(axis=0))
    return {"segmentation mIoU": Outcome((score,), contributions(intersection, union)[None])}


@torch.no_grad()
def _maps(subject: Masked, images: MaskedImages) -> Tensor:
    """The base's maps of all images, float16 on the CPU: the layer needs them in every epoch, the base but once."""
    subject.base.eval()
    parts = []
    for pixels in torch.split(images.images, subject.batch_size):
        map_BCHW = subject.base(subject.views.prepare(pixels.to(subject.device))).map
        parts.append(map_BCHW.half().cpu())
    maps_NCHW = torch.cat(parts)
    if not torch.isfinite(maps_NCHW).all():
        raise BaseModelError(f"weights '{subject.name}': the base's feature maps are not finite")
    return maps_NCHW


def _train(
    layer: nn.Conv2d,
    maps_NCHW: Tensor,
    masks_NHW: Tensor,
    standardised: Callable[[Tensor], Tensor],
    spec: EvaluationSpec,
) -> None:
    settings = spec.segmentation
    device = layer.weight.device
    optimizer = torch.optim.AdamW(layer.parameters(), lr=settings.learning_rate, weight_decay=1e-4)
    steps_per_epoch = math.ceil(len(maps_NCHW) / settings.batch_size)
    steps = settings.epochs * steps_per_epoch
    for epoch in range(settings.epochs):
        order = torch.randperm(len(maps_NCHW), generator=derived_generator(spec.seed, "segmentation", epoch))
        for batch, rows in enumerate(torch.split(order, settings.batch_size)):
            step = epoch * steps_per_epoch + batch
            masks = masks_NHW[rows].to(device)
            loss = F.cross_entropy(
                _enlarged(layer(standardised(maps_NCHW[rows])), masks), masks, ignore_index=IGNORED
            )
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.param_groups[0]["lr"] = learning_rate(
                step, steps=steps, warmup_steps=0, peak=settings.learning_rate
            )
            optimizer.step()


@torch.no_grad()
def _test(
    layer: nn.Conv2d, maps_NCHW: Tensor, standardised: Callable[[Tensor], Tensor], subject: Masked
) -> tuple[Counts, Counts]:
    """Pixels of each class in intersection and union, by image."""
    counted = []
    batches = zip(
        torch.split(maps_NCHW, subject.batch_size),
        torch.split(subject.dataset.test.masks, subject.batch_size),
        strict=True,
    )
    for maps, masks in batches:
        truth = masks.to(subject.device)
        predicted = _enlarged(layer(standardised(maps)), truth).argmax(dim=1)
        counted.append(counts(predicted, truth, len(subject.dataset.classes)))
    intersections, unions = zip(*counted, strict=True)
    return np.concatenate(intersections), np.concatenate(unions)


def _enlarged(logits_BKHW: Tensor, masks_BHW: Tensor) -> Tensor:
    return F.interpolate(logits_BKHW, size=masks_BHW.shape[1:], mode="bilinear", align_corners=False)


def counts(predicted_NHW: Tensor, truth_NHW: Tensor, classes: int) -> tuple[Counts, Counts]:
    """Pixels of each class in intersection and union of prediction and truth, by image (N, classes); a negative truth does not count."""
    images = len(truth_NHW)
    valid = truth_NHW >= 0
    image_NHW = torch.arange(images, device=truth_NHW.device)[:, None, None].expand_as(truth_NHW)

    def by_class(label_NHW: Tensor, counted_NHW: Tensor) -> Tensor:
        place = (image_NHW * classes + label_NHW)[counted_NHW]
        return torch.bincount(place, minlength=images * classes).view(images, classes)

    intersection = by_class(truth_NHW, valid & (predicted_NHW == truth_NHW))
    union = by_class(predicted_NHW, valid) + by_class(truth_NHW, valid) - intersection
    return intersection.cpu().numpy(), union.cpu().numpy()


def mean_iou(intersection_C: Counts, union_C: Counts) -> float:
    """In percent: the mean over classes of intersection over union, pixels of all images taken together.

    Classes that neither occur nor are predicted are left out. Everingham et al., "The Pascal Visual Object Classes Challenge", IJCV 2010.
    """
    present = union_C > 0
    return 100.0 * float(np.mean(intersection_C[present] / union_C[present]))


def contributions(intersection_NC: Counts, union_NC: Counts) -> NDArray[np.float64]:
    """Jackknife pseudo-values (N,) of the mean IoU: N times that of all images less N - 1 times that of all but one.

    Their spread over the images gives the variance of the mean IoU (Tukey 1958; Efron and Stein, Annals of Statistics 1981).
    """
    images = len(intersection_NC)
    intersection_C, union_C = intersection_NC.sum(axis=0), union_NC.sum(axis=0)
    whole = mean_iou(intersection_C, union_C)
    without = [
        mean_iou(intersection_C - one_intersection, union_C - one_union)
        for one_intersection, one_union in zip(intersection_NC, union_NC, strict=True)
    ]
    return images * whole - (images - 1) * np.array(without)
