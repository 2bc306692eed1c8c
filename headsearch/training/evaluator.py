"""The `Evaluate` of a search: trains a base with one candidate, or with several, on a short schedule and scores each.

Comes in: an experiment, then trainings with their contexts. Goes out: a `TrainingResult` each. What trainings share (images, base
weights) is read once, when first needed; an evaluator that is sent to another process leaves it behind and reads it there.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from headsearch.base.model import Base
from headsearch.errors import BaseModelError, ExperimentError, PluginError
from headsearch.experiment import Experiment, ProxySpec, ScheduleSpec
from headsearch.experiment.sections import TOUCHES_NO_SCORE
from headsearch.heads import Candidate, head_id
from headsearch.heads.controls import control_heads, same_head
from headsearch.heads.cost import HeadCost
from headsearch.methods import build_method
from headsearch.methods.collectives import rank, world_size
from headsearch.plugins import changed, load_plugins
from headsearch.scoring.cost import head_cost
from headsearch.training.candidates import CHECKPOINT_SECONDS, CandidatesRun
from headsearch.training.devices import generators_kept, resolve_device, shared_gpus
from headsearch.training.materials import Inputs, build_pair, check_local_crops, empty_base_of
from headsearch.training.memory import check_joint_memory, free_memory
from headsearch.training.overhead import Overhead, step_overhead, step_seconds
from headsearch.training.scorer import Scorer
from headsearch.training.seeds import derived_generator
from headsearch.training.team import train_in_ranks
from headsearch.training.trainer import Trainer
from headsearch.training.trial import (
    BEGINNING,
    BRANCHES,
    Training,
    TrainingContext,
    TrainingResult,
    TrialStage,
)


class Evaluator:
    """Scores candidates by short trainings. Picklable."""

    def __init__(self, experiment: Experiment, *, checkpoint_seconds: float = CHECKPOINT_SECONDS) -> None:
        """Read nothing yet; see `prepare`. A checkpoint is written at every rung, and when `checkpoint_seconds` have passed."""
        self.experiment = experiment
        self._code = experiment.code()
        self.checkpoint_seconds = checkpoint_seconds
        self.inputs = Inputs(
            experiment.base, experiment.data, batch_size=experiment.proxy.batch_size, seed=experiment.seed
        )
        self._scorer: Scorer | None = None

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_scorer": None}

    def prepare(self) -> None:
        """Read images and base now, so that what is wrong with them is said before the first training.

        Raises:
            UserError: device, method, augmentation, data or base cannot be used.
        """
        resolve_device(self.experiment.proxy.device)
        trunk = self.experiment.proxy.trunk
        if trunk is not None and trunk.file is not None:
            try:
                self.inputs.branched(trunk.file)
            except BaseModelError as error:
                raise ExperimentError(f"proxy.trunk: {error}") from error
        self._prepared()
        self.inputs.check_method(self.experiment.method)

    def let_go(self) -> None:
        """Forget base and images; they are read again when they are needed."""
        self.inputs.let_go()
        self._scorer = None

    def __call__(self, training: Training, context: TrainingContext) -> TrainingResult:
        """Train the base with the candidates and score each; resumes where the training's folder holds a checkpoint.

        Everything random follows from the training's seed: on a CPU the same seed gives the same scores. Base, projectors of the base,
        batches and views are the same for all candidates with the same seed. The global random state is left as it was. Several ranks train
        in processes of their own, which end with this call. The checkpoint stays, for whoever has written down how the training ended to remove: until then a crash would have it trained again.

        Raises:
            InfeasibleHead: every candidate collapsed or became non-finite.
            TrialStopped: the context's search wants no more of it.
            TimeoutError: a GPU was full, and others did not leave it for a second attempt.
            RankLost: one of several ranks has died.
            UserError: what `prepare` raises; a head that the base cannot carry; a folder that cannot be written.
        """
        self._take_up_plugins()
        train = partial(self._train, training, context)
        if world_size() > 1:
            # In the process of a rank.
            return train()
        if self._ranks > 1:
            train = partial(
                train_in_ranks, self, self._ranks, self.experiment.proxy.device, training, context
            )
        for gpu in shared_gpus(self._device, self._ranks, context.waits):
            train = partial(gpu.train, train)
        return train()

    def _train(self, training: Training, context: TrainingContext) -> TrainingResult:
        with generators_kept(self._device):
            left_out = self._prepared().dataset.left_out
            before = len(left_out.unreadable)
            run = self.start(training, context)
            run.run()
            result = run.result([self._cost(candidate, training, run) for candidate in training.candidates])
            told = tuple(left_out.told_unreadable(before))
            return replace(result, left_out=told, notes=tuple(run.notes))

    def start(self, training: Training, context: TrainingContext) -> CandidatesRun:
        """The run of a training, resumed from its checkpoint where there is one, but not gone on with. Seeds the global generator.

        Raises `UserError` as calling the evaluator does.
        """
        screen = self.experiment.search.screen
        joint = training.stage == "screen"
        schedule = schedule_of(self.experiment, training.stage, training.epochs)
        anchors = control_heads(self.inputs.info).values() if joint else ()
        return CandidatesRun(
            training,
            context,
            self._trainer(training.candidates, training.seed, schedule, self._beginning(training)),
            self._prepared(),
            rungs=schedule.rungs,
            identity=self._identity(training),
            checkpoint_seconds=self.checkpoint_seconds,
            heads_per_step=screen.in_each_step(len(training.trials)),
            reduction=screen.reduction,
            kept=[place for place, candidate in enumerate(training.candidates) if candidate in anchors],
        )

    def check_screen(self, heads: Sequence[Candidate]) -> float:
        """The bytes that a joint training of these heads, or of others like them, needs on each rank. Raises `ExperimentError` where it would not fit."""
        experiment = self.experiment
        screen = experiment.search.screen
        base = empty_base_of(experiment.base, experiment.data)
        device = resolve_device(experiment.proxy.device)
        return check_joint_memory(
            base,
            heads,
            build_method(experiment.method.name, width=base.info.width, **experiment.method.kwargs),
            heads_per_step=screen.in_each_step(len(heads)),
            batch_size=experiment.proxy.batch_size // self._ranks,
            # Accelerators have memories of their own, ranks on a processor share one.
            free=free_memory(device) // (self._ranks if device.type == "cpu" else 1),
        )

    def seconds_per_proxy(self) -> float:
        """How long a proxy takes on this machine, about: that of the control `same`, from a few of its steps; of several ranks from those of
        one, without what they tell each other."""
        seed = self.experiment.seed
        with generators_kept(self._device):
            trainer = self._trainer([same_head(self.inputs.info)], seed, self._as_written)
            return trainer.steps * step_seconds(trainer, self._some_views(seed))

    def overhead(self, candidates: Sequence[Candidate]) -> float:
        """What a step with all these heads takes beyond one without, as a share of the latter. Trains a few steps of both, in turns."""
        seed = self.experiment.seed
        with generators_kept(self._device):
            return self._overhead(self._trainer(candidates, seed, self._as_written), seed).median

    def _take_up_plugins(self) -> None:
        """Load them where this is another process, and refuse files that have changed meanwhile. Raises `PluginError`."""
        other = changed(self._code, self.experiment.code())
        if other is not None:
            raise PluginError(f"the search cannot go on {other}; restore it, then --resume")
        load_plugins(self.experiment.plugins)

    @property
    def _ranks(self) -> int:
        return self.experiment.search.ranks

    @property
    def _device(self) -> torch.device:
        return resolve_device(self.experiment.proxy.device)

    @property
    def _as_written(self) -> ProxySpec:
        """The schedule for a few steps, which do not pay for compiling."""
        return self.experiment.proxy.model_copy(update={"compile": False})

    def _prepared(self) -> Scorer:
        """What knows the images, and scores."""
        if self._scorer is None:
            experiment = self.experiment
            dataset, views = self.inputs.images
            self._scorer = Scorer(
                dataset,
                views,
                discrepancy=experiment.search.discrepancy,
                labels=experiment.data.labels == "probe",
                seed=experiment.seed,
            )
        return self._scorer

    def _beginning(self, training: Training) -> Callable[[], Base]:
        """What makes the base that a training begins with."""
        trunk = self.experiment.proxy.trunk
        if trunk is None or training.stage not in BRANCHES:
            return self.inputs.base
        file = trunk.file or str(training.workdir / BEGINNING)
        return lambda: self.inputs.branched(file)

    def _trainer(
        self,
        candidates: Sequence[Candidate],
        seed: int,
        schedule: ScheduleSpec,
        make_base: Callable[[], Base] | None = None,
    ) -> Trainer:
        """A pair at its start, every part drawn from a stream of its own."""
        scorer = self._prepared()
        heads = [head for candidate in candidates for head in candidate.config.heads]
        hssl = build_pair(make_base or self.inputs.base, heads, self.experiment.method, seed)
        check_local_crops(scorer.views, hssl)
        steps = len(scorer.dataset.train) // schedule.batch_size
        return Trainer(hssl, schedule, steps_per_epoch=steps, device=self._device)

    def _cost(self, candidate: Candidate, training: Training, run: CandidatesRun) -> HeadCost:
        """Size, and of a proxy the time a step takes beyond one without a head; the trained pair is spoilt by measuring it."""
        cost = head_cost(candidate.config, self.inputs.info)
        if training.stage == "screen":
            return cost
        if not candidate.config.heads:
            return replace(cost, overhead=0.0)
        measured = self._overhead(run.trainer, training.seed)
        return replace(cost, overhead=measured.median, overhead_spread=measured.spread)

    def _overhead(self, trainer: Trainer, seed: int) -> Overhead:
        return step_overhead(trainer, self._trainer([], seed, trainer.recipe), self._some_views(seed))

    def _some_views(self, seed: int) -> Sequence[Tensor]:
        scorer = self._prepared()
        share = self.experiment.proxy.batch_size // self._ranks
        batches = scorer.dataset.train.batches(share, drop_last=True)
        images, _ = next(itertools.islice(batches, rank(), None))
        return scorer.views(images, derived_generator(seed, "overhead"), self._device)

    def _identity(self, training: Training) -> str:
        """Whatever decides the course of a training, as a hash."""
        experiment = self.experiment
        sections = experiment.model_dump(mode="json", include={"base", "data", "method", "proxy", "seed"})
        for key in TOUCHES_NO_SCORE:
            sections["data"].pop(key, None)
        # Told by its digest, wherever it lies.
        sections["base"].pop("module", None)
        if sections["proxy"]["weight_decay_end"] == sections["proxy"]["weight_decay"]:
            # Not yet a key when older trials were interrupted.
            del sections["proxy"]["weight_decay_end"]
        heads = [head_id(head) for candidate in training.candidates for head in candidate.config.heads]
        joint = training.stage == "screen" or len(heads) > 1
        sections["screen"] = experiment.search.screen.model_dump(mode="json") if joint else None
        described = {"heads": heads, "seed": training.seed, "experiment": sections}
        if training.epochs is not None:
            described["epochs"] = training.epochs
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def schedule_of(experiment: Experiment, stage: TrialStage, own: int | None = None) -> ProxySpec:
    """The proxy's schedule, with the epochs and rungs of a screen or a trunk where it is one; with its `own` epochs where a training has some."""
    proxy = experiment.proxy
    if own is not None:
        epochs, rungs = own, [own]
    elif stage == "proxy":
        return proxy
    elif stage == "screen":
        epochs, rungs = experiment.search.screen.schedule(proxy.epochs)
    else:
        epochs, rungs = proxy.trunk_epochs, [proxy.trunk_epochs]
    fields = proxy.model_dump(exclude={"epochs", "rungs", "warmup_epochs", "trunk"})
    return ProxySpec.model_validate(
        {**fields, "epochs": epochs, "rungs": rungs, "warmup_epochs": epochs / 10}
    )
