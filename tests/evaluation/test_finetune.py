"""Fine-tuning learns, leaves the base alone, slows the lower layers down, and says so when it diverges."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from headsearch.data.augment import Augmentation, Views
from headsearch.data.load import load_data
from headsearch.data.sets import MemoryImages
from headsearch.errors import BaseModelError
from headsearch.evaluation.finetune import finetune
from headsearch.evaluation.spec import EvaluationSpec, FinetuneSpec
from headsearch.evaluation.subject import Subject
from headsearch.evaluation.weights import find_weights, load_weights


@pytest.fixture(scope="module")
def subject(spec: EvaluationSpec, weights: Path) -> Subject:
    """The tiny base and a part of the digits, of three classes."""
    whole = load_data("digits", root=None, image_size=16, labels="probe", seed=0)

    def easy(images: MemoryImages) -> MemoryImages:
        assert images.labels is not None
        rows = (images.labels < 3).nonzero().flatten()
        return MemoryImages(images.images[rows], images.labels[rows])

    assert isinstance(whole.train, MemoryImages)
    assert isinstance(whole.held_out, MemoryImages)
    part = replace(whole, train=easy(whole.train), held_out=easy(whole.held_out), classes=["0", "1", "2"])
    sized = spec.model_copy(update={"data": spec.data.model_copy(update={"image_size": 16})})
    base = load_weights(find_weights(str(weights)), sized)
    views = Views(Augmentation(), image_size=16, mean=whole.mean, std=whole.std)
    return Subject("tiny", base, part, views, 256, torch.device("cpu"))


def settings(spec: EvaluationSpec, **changes: float) -> EvaluationSpec:
    return spec.model_copy(
        update={
            "seeds": 1,
            "finetune": FinetuneSpec.model_validate({"epochs": 6, "batch_size": 16, **changes}),
        }
    )


def test_it_learns_on_a_copy_and_repeats_itself(subject: Subject, spec: EvaluationSpec) -> None:
    before = {name: value.clone() for name, value in subject.base.state_dict().items()}
    state = torch.get_rng_state()
    first = finetune(subject, settings(spec))["finetune"]
    assert first.score > 60, "three classes: chance is a third"
    assert first.contributions.shape == (1, len(subject.dataset.held_out))
    assert all(torch.equal(value, before[name]) for name, value in subject.base.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert finetune(subject, settings(spec))["finetune"].by_seed == first.by_seed


def test_layers_below_learn_more_slowly(
    subject: Subject, spec: EvaluationSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = []
    real = torch.optim.AdamW

    def spy(groups: list[dict[str, object]], **options: object) -> torch.optim.AdamW:
        trained.extend(groups)
        return real(groups, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.optim, "AdamW", spy)
    finetune(subject, settings(spec, epochs=1, layer_decay=0.5))
    scales = sorted({float(group["lr_scale"]) for group in trained})  # type: ignore[arg-type]
    # Patches, two blocks, norm and classifier: halved from each to the next.
    assert scales[-1] == 1.0
    assert scales == pytest.approx([0.5**power for power in range(len(scales) - 1, -1, -1)])
    assert len(scales) >= 4
    for group in trained:
        one_dimensional = [weight.ndim <= 1 for weight in group["params"]]
        assert not (group["weight_decay"] and any(one_dimensional))


def test_divergence_is_an_error_that_says_what_to_do(subject: Subject, spec: EvaluationSpec) -> None:
    with pytest.raises(BaseModelError, match=r"lower finetune.learning_rate"):
        finetune(subject, settings(spec, learning_rate=1e30, warmup_epochs=0))
