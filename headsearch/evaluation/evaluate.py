"""Evaluates several weights of one base side by side: every probe for every weights, with intervals and paired differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from headsearch.data.augment import Views
from headsearch.data.load import check_probe, load_data, statistics
from headsearch.data.recipe import default_augmentation
from headsearch.data.segmentation import MaskedDataset, load_masks
from headsearch.data.sets import Dataset
from headsearch.errors import BaseModelError, ExperimentError, LabelsMissing
from headsearch.evaluation.detection import DetectionCheck, check_detection
from headsearch.evaluation.finetune import finetune
from headsearch.evaluation.frozen import few_shot, knn, linear, retrieval
from headsearch.evaluation.health import Health, check_health
from headsearch.evaluation.intervals import Outcome
from headsearch.evaluation.result import Evaluation, compared
from headsearch.evaluation.segmentation import Masked, segmentation
from headsearch.evaluation.spec import EvaluatedBase, EvaluationSpec, ProbeName
from headsearch.evaluation.subject import Subject
from headsearch.evaluation.weights import (
    Normalisation,
    Weights,
    find_weights,
    load_weights,
    own_image_size,
    own_normalisation,
)
from headsearch.plugins import load_plugins
from headsearch.pretrain import PretrainSpec
from headsearch.training.devices import resolve_device

Tell = Callable[[str], None]

_ON_IMAGES: Mapping[ProbeName, Callable[[Subject, EvaluationSpec], dict[str, Outcome]]] = {
    "knn": knn,
    "linear": linear,
    "few-shot": few_shot,
    "finetune": finetune,
    "retrieval": retrieval,
}


def evaluate(spec: EvaluationSpec, names: Sequence[str], *, tell: Tell = lambda _: None) -> Evaluation:
    """Evaluate the weights of these names. The first are what the others are compared with.

    Args:
        spec: what to do. What it leaves open is taken from the first pretraining directory among the weights, or derived.
        names: each `random`, `pretrained`, a file, or a pretraining directory.
        tell: called with one line for each thing done and each warning.

    Raises:
        UserError: weights, base, data or device cannot be used. All are loaded before the first probe.
    """
    weights = _found(names)
    spec = settled(spec, weights)
    device = resolve_device(spec.device, "device")
    bases = [load_weights(each, spec) for each in weights]
    spec, images = _with_images(spec, tell)
    masked = _masked(spec)
    broken = 0 if images is None else len(images.left_out.unreadable)
    _warn_of_other_cuts(spec, weights, tell)
    outcomes: dict[str, dict[str, Outcome]] = {}
    checks: list[DetectionCheck] = []
    health: list[Health] = []
    for each, base in zip(weights, bases, strict=True):
        found = outcomes[each.name] = {}
        base.to(device).eval()
        own = own_normalisation(each, base.info.model) if spec.data.channels == "rgb" else None
        subject = None
        if images is not None:
            views = _views(spec, own or (images.mean, images.std))
            subject = Subject(each.name, base, images, views, spec.batch_size, device)
        for probe in spec.probes:
            if probe == "detection":
                checks.append(check_detection(each.name, base, spec, device))
            elif probe == "segmentation":
                assert masked is not None
                views = _views(spec, own or statistics(masked.train.images, spec.data.channels or "rgb"))
                found |= segmentation(Masked(each.name, base, masked, views, spec.batch_size, device), spec)
            elif probe == "label-free":
                assert subject is not None
                health.append(check_health(subject, spec, health))
            else:
                assert subject is not None
                found |= _ON_IMAGES[probe](subject, spec)
            tell(f"{each.name}: {probe} done")
        base.to("cpu")
    if images is None:
        return Evaluation(spec, compared(outcomes), tuple(checks))
    for line in images.left_out.told_unreadable(broken):
        tell(line)
    return Evaluation(spec, compared(outcomes), tuple(checks), tuple(images.told()), tuple(health))


def settled(spec: EvaluationSpec, weights: Sequence[Weights]) -> EvaluationSpec:
    """The spec with nothing left open: base, data, image size and seed, if not given, are those of the first pretraining.

    Raises:
        ExperimentError: there is no base or no data.
    """
    trained = next((each.pretraining for each in weights if each.pretraining is not None), None)
    base, data = spec.base, spec.data
    if base.model is None:
        if trained is None:
            raise ExperimentError(
                "--base: expected the timm model of these weights, or its factory (only a pretraining directory names its own)"
            )
        base = EvaluatedBase(
            model=trained.base.model, module=trained.base.module, kwargs=trained.base.kwargs | base.kwargs
        )
    assert base.model is not None
    size = data.image_size
    if data.dataset is None and trained is not None:
        load_plugins(trained.plugins)
        own = trained.data.model_dump(include={"dataset", "root", "unreadable", "cache"})
        data = data.model_copy(
            update=own | data.model_dump(include={"unreadable", "cache"}, exclude_unset=True)
        )
    if size is None:
        size = own_image_size(base.model, base.kwargs) if trained is None else trained.data.image_size
    needs_data = set(spec.probes) - {"detection", *(["segmentation"] if spec.segmentation.dataset else [])}
    if data.dataset is None and needs_data:
        raise ExperimentError(f"--data: which images? ({', '.join(sorted(needs_data))} need some)")
    seed = spec.seed if trained is None or "seed" in spec.model_fields_set else trained.seed
    channels = data.channels or ("rgb" if trained is None else trained.data.channels)
    data = data.model_copy(update={"image_size": size, "channels": channels})
    return spec.model_copy(update={"base": base, "data": data, "seed": seed})


def check_images(spec: EvaluationSpec, pretraining: PretrainSpec, tell: Tell) -> None:
    """Read the images that an evaluation of this pretraining will need, so that mistakes show before the training. `tell` is called with what
    was understood of them.

    Raises:
        UserError: there are no such images, or they lack what the probes need.
    """
    whole = settled(spec, [Weights("", None, pretraining)])
    resolve_device(whole.device, "device")
    whole, _ = _with_images(whole, tell)
    _masked(whole)


def _found(names: Sequence[str]) -> list[Weights]:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise BaseModelError(f"weights: '{twice}' is given twice")
    return [find_weights(name) for name in names]


def _with_images(spec: EvaluationSpec, tell: Tell) -> tuple[EvaluationSpec, Dataset | None]:
    """The spec and its images, where a probe asks for them. Where nobody chose the probes, they are those that the images allow.
    Says what was understood of the images."""
    try:
        images = _images(spec)
    except LabelsMissing as error:
        if "probes" in spec.model_fields_set:
            raise
        tell(f"no probe but retrieval, which needs no labels: {error.problem}")
        spec = spec.model_copy(update={"probes": ["retrieval"]})
        images = _images(spec)
    for line in [] if images is None else images.told():
        tell(line)
    return spec, images


def _images(spec: EvaluationSpec) -> Dataset | None:
    probes = set(spec.probes) & {*_ON_IMAGES, "label-free"}
    if not probes:
        return None
    assert spec.data.dataset is not None
    assert spec.data.image_size is not None
    dataset = load_data(
        spec.data.dataset,
        root=spec.data.root,
        image_size=spec.data.image_size,
        channels=spec.data.channels or "rgb",
        labels="none" if probes <= {"retrieval", "label-free"} else "probe",
        seed=spec.seed,
        prefer="test",
        unreadable=spec.data.unreadable,
        cache=spec.data.cache,
    )
    if "linear" in spec.probes:
        check_probe(dataset)
    return dataset


def _masked(spec: EvaluationSpec) -> MaskedDataset | None:
    """The images with masks, if segmentation is asked for."""
    if "segmentation" not in spec.probes:
        return None
    settings = spec.segmentation
    dataset = settings.dataset or ("digits" if spec.data.dataset == "digits" else "folder")
    assert spec.data.image_size is not None
    return load_masks(
        dataset,
        root=settings.root or spec.data.root,
        image_size=spec.data.image_size,
        channels=spec.data.channels or "rgb",
        most_train=settings.train_images,
        seed=spec.seed,
    )


def _views(spec: EvaluationSpec, normalisation: Normalisation) -> Views:
    assert spec.data.image_size is not None
    mean, std = normalisation
    size, channels = spec.data.image_size, spec.data.channels or "rgb"
    augmentation = default_augmentation(spec.data.dataset or "folder", size, channels)
    return Views(augmentation, image_size=size, mean=mean, std=std, channels=channels)


def _warn_of_other_cuts(spec: EvaluationSpec, weights: Sequence[Weights], tell: Tell) -> None:
    """Warn if a pretraining on the same images held out others than this evaluation does."""
    for each in weights:
        trained = each.pretraining
        if trained is None or trained.seed == spec.seed:
            continue
        if (trained.data.dataset, trained.data.root) == (spec.data.dataset, spec.data.root):
            tell(
                f"beware: {each.name} was pretrained with seed {trained.seed}, this evaluation has {spec.seed}: "
                "unless the data set has a test split of its own, some test images were seen in pretraining"
            )
