"""How a search goes: its space, its stages, its stopping, and where trials run."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, ValidationInfo, model_validator

from headsearch.document import shorten
from headsearch.errors import ExperimentError
from headsearch.experiment.budget import hours, seeds_of_shared_control, with_budget
from headsearch.experiment.callbacks import CallbackSpec
from headsearch.experiment.guests import EXECUTORS, GUEST, GuestExecutor, kind_of
from headsearch.experiment.schema_errors import checked
from headsearch.experiment.sections import PRETRAINING_EPOCHS, FilePath, Positive, Section, is_recorded


class HalvingSpec(Section):
    """Asynchronous successive halving: at every rung the best `1/reduction` so far go on."""

    kind: Literal["asha"] = "asha"
    reduction: Annotated[int, Field(ge=2)] = 3


class NoStoppingSpec(Section):
    """Every trial runs its full budget."""

    kind: Literal["none"] = "none"


class InlineSpec(Section):
    """Trials run one after the other in this process."""

    kind: Literal["inline"] = "inline"


class WorkersSpec(Section):
    """Trials run in workers, each of which takes one after the other."""

    kind: str
    workers: Positive | None = 2
    max_retries: Annotated[int, Field(ge=0)] = 2
    """How often a trial whose worker was lost is taken up by another."""
    timeout: Annotated[float, Field(gt=0)] = 1800.0
    """Seconds without a sign of life after which a worker is lost. Reading the images and scoring a rung give none meanwhile."""


class ProcessSpec(WorkersSpec):
    """Trials run in worker processes on this machine."""

    kind: Literal["process"] = "process"
    workers: Positive = 2
    """They divide the cores among them."""
    workers_per_gpu: Positive = 1
    """How many may share a GPU, where trials run on GPUs."""


class RaySpec(WorkersSpec):
    """Trials run on a Ray cluster."""

    kind: Literal["ray"] = "ray"
    address: str | None = None
    """null: a cluster of this machine alone, which ends with the search; `auto` (found on this machine) or `host:port`: one that runs."""
    workers: Positive | None = None
    """Trials at once; null: as many as the cluster has room for."""
    cpus_per_trial: Annotated[float, Field(gt=0)] = 1.0
    """Also the threads of a trial, rounded down, but no fewer than one."""
    gpus_per_trial: Annotated[float, Field(ge=0)] = 0.0
    """A whole number: a trial trains on so many, each with an equal share of a batch. Or a share of one; 0: trials see none."""
    storage: FilePath | None = None
    """Where checkpoints travel through: a folder that all nodes see, or a URL, e.g. s3://bucket/path; null: the run directory."""

    @model_validator(mode="after")
    def _can_be_asked_of_ray(self) -> RaySpec:
        if self.gpus_per_trial > 1 and self.gpus_per_trial % 1:
            raise ValueError(
                f"gpus_per_trial: expected a whole number, or a share of one GPU, got {self.gpus_per_trial:g}"
            )
        if self.address not in (None, "auto") and not re.fullmatch(r"[^/:\s]+:\d{1,5}", str(self.address)):
            raise ValueError(
                f"address: expected null, auto or host:port of the cluster's head, got {self.address!r}"
            )
        return self


class SlurmSpec(WorkersSpec):
    """Trials run in jobs of a SLURM cluster. Those that are preempted, or whose node fails, do not count as retries."""

    kind: Literal["slurm"] = "slurm"
    workers: Positive = 2
    """Jobs."""
    cpus_per_trial: Positive = 1
    """Of each job; also the threads of its trials."""
    gpus_per_trial: Annotated[int, Field(ge=0)] = 0
    """Of each job: a trial trains on so many, each with an equal share of a batch. 0: trials see none."""
    host: str | None = None
    """Name or address by which nodes reach the machine of `headsearch run`; null: its host name."""
    sbatch: dict[str, str | int | bool] = Field(default_factory=dict)
    """More options of sbatch by their long names, e.g. {partition: gpu, time: 8:00:00, mem: 16G}; true: one that takes no value."""


ExecutorSpec = Annotated[
    Annotated[InlineSpec, Tag("inline")]
    | Annotated[ProcessSpec, Tag("process")]
    | Annotated[RaySpec, Tag("ray")]
    | Annotated[SlurmSpec, Tag("slurm")]
    | Annotated[GuestExecutor, Tag(GUEST)],
    Discriminator(kind_of(EXECUTORS)),
]

Control = Literal["none", "same", "mlp"]


class ScreenSpec(Section):
    """Joint training of many heads on one base, each scored without labels."""

    heads: Positive = 24
    """Heads to screen; those that tie several joint runs together are not counted."""
    batch: Annotated[int, Field(ge=2)] = 24
    """Most heads in one joint run. More are split into several, which share two anchor heads."""
    heads_per_step: Positive | None = None
    """Heads that are trained in each step, in turn; null: a sixth of those in the run. All of them: each step costs more."""
    epochs: Positive | None = None
    """null: as many as a proxy."""
    rungs: list[Positive] = Field(default_factory=list)
    """Epochs at which heads are scored; empty: half and all of the epochs."""
    reduction: Positive = 2
    """At every rung but the last the best one of so many goes on; 1: all do."""

    @model_validator(mode="after")
    def _rungs_end_at_the_budget(self) -> ScreenSpec:
        if self.rungs and list(self.rungs) != sorted(set(self.rungs)):
            raise ValueError(f"rungs must rise, got {list(self.rungs)}")
        if self.rungs and self.epochs is not None and self.rungs[-1] != self.epochs:
            raise ValueError(f"rungs must end at epochs ({self.epochs}), got {list(self.rungs)}")
        if self.heads_per_step is not None and self.heads_per_step > self.batch:
            raise ValueError(f"heads_per_step ({self.heads_per_step}) must not exceed batch ({self.batch})")
        return self

    def in_each_step(self, heads: int) -> int:
        """How many of a run's `heads` take part in every step."""
        return min(heads, self.heads_per_step or -(-heads // 6))

    def schedule(self, proxy_epochs: int) -> tuple[int, list[int]]:
        """Epochs and rungs, where a proxy takes `proxy_epochs`."""
        epochs = self.epochs or (self.rungs[-1] if self.rungs else proxy_epochs)
        return epochs, list(self.rungs) or sorted({max(1, epochs // 2), epochs})


ANCHORS_WITHOUT_A_HEAD = 2
"""Trainings without a head that the anchors are compared with."""

_CONTROLS: list[Control] = ["none", "same", "mlp"]
FUNNEL_TRIALS = 8
"""Heads with a proxy of their own in a funnel that is not told how many."""

Strategy = Literal["screen", "proxies", "funnel"]
Sampler = Literal["tpe", "random", "nsga2", "gp", "grid"]
CandidateSampler = Literal["random", "nsga2"]


def with_sizes(search: Any, *, trunk: float) -> Any:
    """Plain data of a search with the sizes of a funnel that its budget in proxies pays; a trunk costs `trunk` of them. Raises `ValueError` for too few."""
    if not isinstance(search, dict) or search.get("strategy", "funnel") != "funnel":
        return search
    budget, controls = search.get("budget"), search.get("controls", _CONTROLS)
    if not isinstance(budget, int | float) or isinstance(budget, bool) or not isinstance(controls, list):
        return search
    return with_budget(search, float(budget), controls=len(controls), trunk=trunk)


class SearchSpec(Section):
    """How candidates are chosen, compared and run."""

    space: FilePath = "paper"
    """A shipped name or a path."""
    strategy: Strategy = "funnel"
    """`funnel`: many heads scored untrained, some of them screened, the best of those by proxies of their own, the best again with more seeds.
    `screen`: joint training alone, without labels. `proxies`: a sampler proposes heads, each scored by a proxy of its own."""
    budget: float | str | None = None
    """What the funnel may cost: a number of proxies, or a time (`2 h`, `2 h 30 min`). Sets what is not given of `candidates`, `screen.heads`, `trials`,
    `finalists` and `replicates`."""
    candidates: Positive = 200
    """Heads that the funnel scores before any training."""
    candidate_sampler: CandidateSampler = "random"
    """Proposes them where the space has more than 20,000 descriptions; those of another space are drawn at random."""
    screen: ScreenSpec = ScreenSpec()
    sampler: Sampler = "tpe"
    """Proposes heads where `strategy` is `proxies`."""
    trials: Positive = 24
    """Distinct heads that get a proxy of their own; controls and replicates are not counted. Funnel: 8 unless given."""
    audit: Annotated[int, Field(ge=0)] = 2
    """Of the funnel's `trials`, heads taken by chance and not for their place in the screen, so that the screen can be judged. A third of the
    trials, and at most 2, unless given."""
    finalists: Annotated[int, Field(ge=0)] = 3
    """So many of the best heads may be trained again with further seeds."""
    replicates: Positive = 3
    """Seeds of every control, and the most that a finalist may have."""
    replicates_of_none: Positive | None = None
    """Seeds of the control `none`, if more than `replicates`, since its noise is in every gain; null: √`finalists` times those of the finalist that has
    most, rounded, unless a trunk makes each of them dear."""
    certainty: Annotated[float, Field(gt=0.5, le=1)] = 0.9
    """Finalists get no further seeds once the first of them is, with this probability, within one standard deviation between seeds of the
    best; 1: every finalist gets all."""
    controls: list[Control] = Field(default_factory=lambda: _CONTROLS.copy())
    """Run before anything else."""
    target_epochs: Positive = PRETRAINING_EPOCHS
    """Of the real pretraining that the search is for. Proxies of less than half of it are ordered by the score alone, and nothing is said of worth."""
    equal_time: bool = False
    """Whether the control `none` is also trained, with `replicates` seeds, for as long as the best head's proxies took. Costs its time beyond `budget`."""
    anchors: Annotated[int, Field(ge=0)] = 0
    """So many heads, spread over the order by score, are trained for `target_epochs` in the end, and so is no head, twice: from them the long-run gain of
    every head is predicted. 3 or more, 6 are advised (docs/evidence.md); they cost their time beyond `budget`. 0: none."""
    discrepancy: str = "cka.embedding.output"
    """The measure that ranks: `<cka|mutual_knn|procrustes>.<embedding|tokens>.<output|change>`."""
    stopping: Annotated[HalvingSpec | NoStoppingSpec, Field(discriminator="kind")] = HalvingSpec()
    """Whether trials may end before their full budget. Controls and replicates never do."""
    executor: ExecutorSpec = InlineSpec()
    storage: str | None = None
    """null: study.db in the run directory; or `sqlite:///`, `postgresql://`, `mysql://`, `journal:///`, `grpc://` (docs/search.md)."""
    storage_patience: Annotated[float, Field(ge=0)] = 60.0
    """Seconds that a database may be away during the search."""
    callbacks: list[CallbackSpec] = Field(default_factory=list)
    """What else is told how the search goes: tensorboard, mlflow, wandb, or callbacks of plug-ins."""

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, data: Any, info: ValidationInfo) -> Any:
        if not isinstance(data, dict):
            return data
        if is_recorded(info):
            # A run of a time in which `none` had as many seeds as the other controls goes on so.
            data = {"replicates_of_none": 1, **data}
        if data.get("finalists") == 0 and "replicates" not in data:
            data = {**data, "replicates": 1}
        return data

    def sized(self, proxies: float, *, trunk: float = 0.0) -> SearchSpec:
        """This search with a budget in hours turned into sizes, where so many proxies fit into it; a trunk costs `trunk` of them.

        Raises:
            ValueError: too few for one head.
            ExperimentError: they do not go with the sizes that are given.
        """
        asked = self.model_dump(exclude_unset=True)
        sizes = with_budget(asked, proxies, controls=len(self.controls), trunk=trunk)
        if self.anchors > sizes["trials"]:
            raise ValueError(
                f"it buys proxies of {sizes['trials']} heads, fewer than anchors ({self.anchors})"
            )
        return checked(SearchSpec, sizes, f"search.budget: {self.budget}", ExperimentError)

    @property
    def runs_apart(self) -> bool:
        """Whether trainings run in other processes."""
        if isinstance(self.executor, GuestExecutor):
            return EXECUTORS[self.executor.kind].apart
        return not isinstance(self.executor, InlineSpec)

    @property
    def ranks(self) -> int:
        """Processes that train one trial together."""
        return (
            max(1, int(self.executor.gpus_per_trial)) if isinstance(self.executor, RaySpec | SlurmSpec) else 1
        )

    @property
    def most_further_seeds(self) -> int:
        """Trainings of finalists and controls after their first, at most."""
        if self.finalists == 0:
            return 0
        of_none = self.seeds_of_none(self.finalists, self.replicates) if "none" in self.controls else 0
        others = self.finalists + len(self.controls) - (of_none > 0)
        return others * (self.replicates - 1) + max(0, of_none - 1)

    def seeds_of_none(self, finalists: int, seeds: int) -> int:
        """How many the control `none` is given where one of so many finalists has so many, and none has more."""
        return max(self.replicates, self.replicates_of_none or seeds_of_shared_control(finalists, seeds))

    @property
    def anchor_trainings(self) -> int:
        """Trainings as long as the real pretraining: the anchors, and those without a head."""
        return self.anchors + ANCHORS_WITHOUT_A_HEAD if self.anchors else 0

    @model_validator(mode="after")
    def _anchors_can_tell(self) -> SearchSpec:
        if self.anchors in (1, 2):
            raise ValueError(
                f"anchors: an interval takes three, expected 0 or at least 3, got {self.anchors}"
            )
        if self.anchors and "target_epochs" not in self.model_fields_set:
            raise ValueError(
                f"anchors: {self.anchors} need target_epochs, the length of the real pretraining, which they are trained for"
            )
        return self

    @model_validator(mode="after")
    def _replicates_need_finalists(self) -> SearchSpec:
        if self.replicates > 1 and self.finalists == 0:
            raise ValueError(f"replicates: {self.replicates} needs finalists of at least 1, got 0")
        if len(set(self.controls)) != len(self.controls):
            raise ValueError(f"controls must not repeat, got {self.controls}")
        kinds = [spec.kind for spec in self.callbacks]
        if len(set(kinds)) != len(kinds):
            raise ValueError(f"callbacks must not repeat, got {kinds}")
        if isinstance(self.budget, str) and not hours(self.budget):
            raise ValueError(
                f"budget: expected a number of proxies, or a time like '2 h 30 min', got {shorten(repr(self.budget))}"
            )
        if self.strategy != "funnel" and self.budget is not None:
            raise ValueError(f"budget is for strategy funnel, not {self.strategy}; set trials instead")
        if self.strategy == "funnel":
            if "trials" not in self.model_fields_set:
                # Not among those that were asked for.
                self.__dict__["trials"] = FUNNEL_TRIALS
            if "audit" not in self.model_fields_set:
                self.__dict__["audit"] = min(2, self.trials // 3)
            self._check_funnel()
        if self.anchors > self.trials and not isinstance(self.budget, str):
            raise ValueError(f"anchors ({self.anchors}) must not exceed trials ({self.trials})")
        return self

    def _check_funnel(self) -> None:
        if self.trials > self.screen.heads:
            raise ValueError(f"trials ({self.trials}) must not exceed screen.heads ({self.screen.heads})")
        if self.screen.heads > self.candidates:
            raise ValueError(
                f"screen.heads ({self.screen.heads}) must not exceed candidates ({self.candidates})"
            )
        if self.audit >= self.trials and self.audit > 0:
            raise ValueError(f"audit ({self.audit}) must leave some of the trials ({self.trials})")
