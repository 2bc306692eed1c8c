"""The `Evaluate` of a search: trains a base with one head, or a set of them, on a short schedule and scores both.

Comes in: an experiment, then heads with their contexts. Goes out: a `TrialResult` each. What trials share (images, base
weights) is read once, when first needed; an evaluator that is sent to another process leaves it behind and reads it there.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from headsearch.base.model import Base, empty_base
from headsearch.data.augment import Views
from headsearch.data.sets import Dataset
from headsearch.experiment import Experiment, ProxySpec
from headsearch.heads.candidate import Candidate
from headsearch.heads.canonical import canonical, head_id
from headsearch.heads.config import HeadConfig
from headsearch.heads.controls import control_heads, same_head
from headsearch.heads.cost import HeadCost
from headsearch.methods import build_method
from headsearch.scoring.cost import head_cost
from headsearch.training.devices import resolve_device
from headsearch.training.materials import build_pair, check_local_crops, new_base, read_images
from headsearch.training.memory import check_joint_memory, free_memory
from headsearch.training.overhead import step_overhead, step_seconds
from headsearch.training.run import CHECKPOINT_SECONDS, ProxyRun
from headsearch.training.scorer import Scorer
from headsearch.training.screen import ScreenRun
from headsearch.training.seeds import derived_generator
from headsearch.training.trainer import Trainer
from headsearch.training.trial import ScreenResult, TrialContext, TrialResult


@dataclass(frozen=True)
class _Shared:
    """What all trials of an experiment have in common."""

    device: torch.device
    dataset: Dataset
    views: Views
    scorer: Scorer
    base: Base | None
    """The base with its weights, to be copied; None where every trial draws its own."""


class ProxyEvaluator:
    """Scores heads by proxies. Picklable."""

    def __init__(self, experiment: Experiment, *, checkpoint_seconds: float = CHECKPOINT_SECONDS) -> None:
        """Read nothing yet; see `prepare`. A checkpoint is written at every rung, and when `checkpoint_seconds` have passed."""
        self.experiment = experiment
        self.checkpoint_seconds = checkpoint_seconds
        self._shared: _Shared | None = None

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_shared": None}

    def prepare(self) -> None:
        """Read images and base now, so that what is wrong with them is said before the first trial.

        Raises:
            UserError: device, method, augmentation, data or base cannot be used.
        """
        if self._shared is None:
            with torch.random.fork_rng(devices=[]):
                self._shared = self._load()

    def images(self) -> Dataset:
        """The images, read as `prepare` does."""
        self.prepare()
        assert self._shared is not None
        return self._shared.dataset

    def __call__(self, config: HeadConfig, context: TrialContext) -> TrialResult | ScreenResult:
        """Train `config`'s head with the base and score it; resumes where the context's work directory holds a checkpoint.

        Everything random follows from `context.seed`: on a CPU the same seed gives the same scores. Base, projectors of the base,
        batches and views are the same for all heads with the same seed. The global random state is left as it was. The checkpoint stays,
        for whoever has written down how the trial ended to remove: until then a crash would have it trained again.

        Raises:
            InfeasibleHead: it collapsed or became non-finite.
            TrialStopped: the context's search wants no more of it.
            UserError: what `prepare` raises; a head that the base cannot carry; a work directory that cannot be written.
        """
        self.prepare()
        assert self._shared is not None
        device, left_out = self._shared.device, self._shared.dataset.left_out
        before = len(left_out.unreadable)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            if context.stage == "screen":
                result = self._screen(config, context)
                return replace(result, left_out=tuple(left_out.told_unreadable(before)))
            run = self.start(config, context)
            rungs = run.run()
            cost = self._cost(config, run.trainer, context.seed, self._shared)
        broken = tuple(left_out.told_unreadable(before))
        return TrialResult(rungs, cost, run.seconds, run.images_per_second, broken)

    def start(self, config: HeadConfig, context: TrialContext) -> ProxyRun:
        """The run of a trial, resumed from its checkpoint where there is one, but not gone on with. Seeds the global generator.

        Raises `UserError` as calling the evaluator does.
        """
        self.prepare()
        assert self._shared is not None
        shared = self._shared
        trainer = self._trainer(config, context.seed, shared)
        context.workdir.mkdir(parents=True, exist_ok=True)
        return ProxyRun(
            trainer,
            shared.scorer,
            shared.dataset.train,
            shared.views,
            context,
            rungs=self.experiment.proxy.rungs,
            identity=self._identity(config, trainer.hssl.student.base, context.seed),
            checkpoint_seconds=self.checkpoint_seconds,
        )

    def check_screen(self, heads: Sequence[Candidate]) -> None:
        """Refuse a joint run of these heads, or of others like them, that would not fit into memory, with an `ExperimentError`."""
        experiment = self.experiment
        spec, screen = experiment.base, experiment.search.screen
        base = empty_base(
            spec.model, image_size=experiment.data.image_size, kwargs=spec.kwargs, stage=spec.stage
        )
        check_joint_memory(
            base,
            heads,
            build_method(experiment.method.name, width=base.info.width, **experiment.method.kwargs),
            heads_per_step=screen.in_each_step(len(heads)),
            batch_size=experiment.proxy.batch_size,
            free=free_memory(resolve_device(experiment.proxy.device)),
        )

    def seconds_per_proxy(self) -> float:
        """How long a proxy takes on this machine, about: that of the control `same`, from a few of its steps."""
        self.prepare()
        assert self._shared is not None
        shared, seed = self._shared, self.experiment.seed
        with torch.random.fork_rng(devices=[]):
            info = self._new_base().info
            trainer = self._trainer(same_head(info).config, seed, shared)
            return trainer.steps * step_seconds(trainer, self._some_views(seed, shared))

    def start_screen(self, config: HeadConfig, context: TrialContext) -> ScreenRun:
        """The joint run of a set's members, as `start` gives that of a trial."""
        self.prepare()
        assert self._shared is not None
        shared, screen = self._shared, self.experiment.search.screen
        schedule = screen_schedule(self.experiment)
        trainer = self._trainer(config, context.seed, shared, schedule)
        info = trainer.hssl.student.base.info
        controls = control_heads(info)
        anchors = {controls[name].head_id for name in ("same", "mlp")}
        context.workdir.mkdir(parents=True, exist_ok=True)
        return ScreenRun(
            trainer,
            shared.scorer,
            shared.dataset.train,
            shared.views,
            context,
            rungs=schedule.rungs,
            identity=self._identity(config, trainer.hssl.student.base, context.seed),
            checkpoint_seconds=self.checkpoint_seconds,
            heads_per_step=screen.in_each_step(len(config.heads)),
            reduction=screen.reduction,
            kept=[index for index, head in enumerate(config.heads) if head_id(head) in anchors],
        )

    def _screen(self, config: HeadConfig, context: TrialContext) -> ScreenResult:
        run = self.start_screen(config, context)
        info = run.trainer.hssl.student.base.info
        return run.screen([head_cost(head, info) for head in config.heads])

    def _load(self) -> _Shared:
        experiment = self.experiment
        data, proxy = experiment.data, experiment.proxy
        device = resolve_device(proxy.device)
        base = self._new_base()
        dataset, views = read_images(data, base, batch_size=proxy.batch_size, seed=experiment.seed)
        scorer = Scorer(
            dataset,
            views,
            discrepancy=experiment.search.discrepancy,
            labels=data.labels == "probe",
            seed=experiment.seed,
        )
        return _Shared(device, dataset, views, scorer, base if experiment.base.weights is not None else None)

    def _new_base(self) -> Base:
        return new_base(self.experiment.base, self.experiment.data.image_size)

    def _trainer(
        self, config: HeadConfig, seed: int, shared: _Shared, proxy: ProxySpec | None = None
    ) -> Trainer:
        """A pair at its start, every part drawn from a stream of its own. `proxy` is another schedule than the experiment's."""
        given = shared.base
        make_base = self._new_base if given is None else lambda: copy.deepcopy(given)
        hssl = build_pair(make_base, config, self.experiment.method, seed)
        check_local_crops(shared.views, hssl)
        proxy = proxy or self.experiment.proxy
        return Trainer(
            hssl, proxy, steps_per_epoch=len(shared.dataset.train) // proxy.batch_size, device=shared.device
        )

    def overhead(self, config: HeadConfig) -> float:
        """What a step with these heads takes beyond one without, as a share of the latter. Trains a few steps of both, in turns."""
        self.prepare()
        assert self._shared is not None
        with torch.random.fork_rng(devices=[]):
            seed = self.experiment.seed
            return self._overhead(self._trainer(config, seed, self._shared), seed, self._shared)

    def _cost(self, config: HeadConfig, trainer: Trainer, seed: int, shared: _Shared) -> HeadCost:
        """Size, and the time a step takes beyond one without a head; the trained pair is spoilt by measuring it."""
        cost = head_cost(config, trainer.hssl.student.base.info)
        return replace(cost, overhead=self._overhead(trainer, seed, shared) if config.heads else 0.0)

    def _overhead(self, trainer: Trainer, seed: int, shared: _Shared) -> float:
        without_head = self._trainer(HeadConfig(), seed, shared)
        return step_overhead(trainer, without_head, self._some_views(seed, shared)).median

    def _some_views(self, seed: int, shared: _Shared) -> Sequence[Tensor]:
        images, _ = next(iter(shared.dataset.train.batches(self.experiment.proxy.batch_size, drop_last=True)))
        return shared.views(images, derived_generator(seed, "overhead"), shared.device)

    def _identity(self, config: HeadConfig, base: Base, seed: int) -> str:
        """Whatever decides the course of a trial, as a hash."""
        sections = self.experiment.model_dump(
            mode="json", include={"base", "data", "method", "proxy", "seed"}
        )
        del sections["data"]["unreadable"]
        if sections["proxy"]["weight_decay_end"] == sections["proxy"]["weight_decay"]:
            # Not yet a key when older trials were interrupted.
            del sections["proxy"]["weight_decay_end"]
        sections["screen"] = self.experiment.search.screen.model_dump(mode="json") if config.members else None
        heads = [head_id(canonical(head, base.info)) for head in config.heads]
        described = {"heads": heads, "seed": seed, "experiment": sections}
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def screen_schedule(experiment: Experiment) -> ProxySpec:
    """The proxy's schedule with the epochs and rungs of a screen."""
    epochs, rungs = experiment.search.screen.schedule(experiment.proxy.epochs)
    fields = experiment.proxy.model_dump(exclude={"epochs", "rungs", "warmup_epochs"})
    return ProxySpec.model_validate(
        {**fields, "epochs": epochs, "rungs": rungs, "warmup_epochs": epochs / 10}
    )
