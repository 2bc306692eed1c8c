"""Mean intersection over union, and what each image contributes to it. Pure functions."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Counts = NDArray[np.int64]


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
