"""Fine-tuning: base and a new classifier are trained on the labels, deeper layers more slowly (BEiT, arXiv 2106.08254; MAE, arXiv 2111.06377).

Short, and the same for all weights: it compares weights, and is not the best that each could reach.
"""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import torch
from timm.optim._param_groups import param_groups_layer_decay
from torch import Tensor, nn

from headsearch.base.own import OwnBase
from headsearch.data.augment import Views
from headsearch.data.recipe import default_augmentation
from headsearch.errors import BaseModelError
from headsearch.evaluation.intervals import Outcome
from headsearch.evaluation.spec import EvaluationSpec
from headsearch.evaluation.subject import Subject, accuracy_outcome, labels_of
from headsearch.training.devices import autocast_dtype, generators_kept
from headsearch.training.schedules import learning_rate
from headsearch.training.seeds import derived_generator, derived_seed


def finetune(subject: Subject, spec: EvaluationSpec) -> dict[str, Outcome]:
    """Accuracy on test after training on train; a seed decides the classifier's start, the order of images and their crops.

    Raises `BaseModelError` where the loss does not stay finite.
    """
    predicted = []
    for seed in range(spec.seeds):
        drawn = derived_seed(spec.seed, "finetune", seed)
        with generators_kept(subject.device):
            torch.manual_seed(derived_seed(drawn, "network"))
            model = _with_classifier(subject)
            _train(model, subject, spec, drawn)
        labels_M, predicted_M = _predict(model, subject)
        predicted.append(predicted_M)
    return {"finetune": accuracy_outcome(predicted, labels_M)}


def _with_classifier(subject: Subject) -> Any:
    """A copy of the base with a fresh classifier on top: timm's own, or a linear one on the embedding."""
    model: Any = copy.deepcopy(subject.base.model)
    model.requires_grad_(True)
    if isinstance(model, OwnBase):
        model = _Classified(model, subject.base.info.embedding_dim, subject.classes)
    else:
        model.reset_classifier(subject.classes)
    return model.to(subject.device)


class _Classified(nn.Module):
    """A base that is not timm's, with a classifier."""

    def __init__(self, base: OwnBase, embedding_dim: int, classes: int) -> None:
        super().__init__()
        self.base = base
        self.classifier = nn.Linear(embedding_dim, classes)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        _, embedding_BD = self.base.map_and_embedding(images_BCHW)
        logits: Tensor = self.classifier(embedding_BD)
        return logits


def _train(model: Any, subject: Subject, spec: EvaluationSpec, seed: int) -> None:
    settings, images, device = spec.finetune, subject.dataset.train, subject.device
    batch_size = min(settings.batch_size, len(images))
    steps_per_epoch = len(images) // batch_size
    steps = settings.epochs * steps_per_epoch
    views = _crops(subject)
    exempt = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()
    groups = param_groups_layer_decay(
        model,
        weight_decay=settings.weight_decay,
        no_weight_decay_list=exempt,
        layer_decay=settings.layer_decay,
    )
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)
    dtype = autocast_dtype("auto", device)
    model.train()
    for epoch in range(settings.epochs):
        order = derived_generator(seed, "order", epoch)
        loss_sum = torch.zeros((), device=device)
        for batch, (pixels, index) in enumerate(images.batches(batch_size, generator=order, drop_last=True)):
            step = epoch * steps_per_epoch + batch
            # Two crops of each image in one batch: repeated augmentation (Hoffer et al., CVPR 2020).
            crops = torch.cat(views(pixels, derived_generator(seed, "crops", step), device))
            labels = labels_of(images, index).to(device).repeat(2)
            with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
                loss = nn.functional.cross_entropy(model(crops), labels)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            rate = learning_rate(
                step,
                steps=steps,
                warmup_steps=min(steps // 2, round(settings.warmup_epochs * steps_per_epoch)),
                peak=settings.learning_rate,
            )
            for group in optimizer.param_groups:
                group["lr"] = rate * group["lr_scale"]
            optimizer.step()
            loss_sum += loss.detach()
        if not math.isfinite(float(loss_sum)):
            raise BaseModelError(
                f"weights '{subject.name}': fine-tuning diverged in epoch {epoch + 1}; lower finetune.learning_rate ({settings.learning_rate:g})"
            )


def _crops(subject: Subject) -> Views:
    """Random crops, and flips where the images allow them; the colours stay."""
    views = subject.views
    default = default_augmentation(subject.dataset.name, views.image_size, views.channels)
    plain = replace(default, jitter=0.0, grayscale=0.0, blur=(0.0, 0.0), solarize=(0.0, 0.0))
    return Views(plain, image_size=views.image_size, mean=views.mean, std=views.std, channels=views.channels)


@torch.no_grad()
def _predict(model: Any, subject: Subject) -> tuple[Tensor, Tensor]:
    """Labels and predictions (M,) of the test images."""
    model.eval()
    labels, predicted = [], []
    for pixels, index in subject.dataset.held_out.batches(subject.batch_size):
        logits = model(subject.views.prepare(pixels.to(subject.device)))
        predicted.append(logits.argmax(dim=1).cpu())
        labels.append(labels_of(subject.dataset.held_out, index))
    return torch.cat(labels), torch.cat(predicted)
