"""How a search goes: its space, its stages, its stopping, and where trials run."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from headsearch.experiment.sections import Positive, Section


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


class ProcessSpec(Section):
    """Trials run in worker processes on this machine."""

    kind: Literal["process"] = "process"
    workers: Positive = 2
    """They divide the cores among them."""
    workers_per_gpu: Positive = 1
    """How many may share a GPU, where trials run on GPUs."""
    max_retries: Annotated[int, Field(ge=0)] = 2
    """How often a trial whose worker was lost is taken up by another."""
    timeout: Annotated[float, Field(gt=0)] = 1800.0
    """Seconds without a sign of life after which a worker is lost. Reading the images and scoring a rung give none meanwhile."""


class RaySpec(Section):
    """Trials run on a Ray cluster."""

    kind: Literal["ray"] = "ray"
    address: str | None = None
    """null: a cluster of this machine alone, which ends with the search; `auto` (found on this machine) or `host:port`: one that runs."""
    workers: Positive | None = None
    """Trials at once; null: as many as the cluster has room for."""
    cpus_per_trial: Annotated[float, Field(gt=0)] = 1.0
    """Also the threads of a trial, rounded down, but no fewer than one."""
    gpus_per_trial: Annotated[float, Field(ge=0)] = 0.0
    """A share of one, or a whole number; 0: trials see none."""
    max_retries: Annotated[int, Field(ge=0)] = 2
    """How often a trial whose worker was lost is taken up by another."""
    timeout: Annotated[float, Field(gt=0)] = 1800.0
    """Seconds without a sign of life after which a worker is lost. Reading the images and scoring a rung give none meanwhile."""
    storage: str | None = None
    """Where checkpoints travel through: a folder that all nodes see, or a URL, e.g. s3://bucket/path; null: the run directory."""

    @model_validator(mode="after")
    def _can_be_asked_of_ray(self) -> RaySpec:
        if self.gpus_per_trial > 1 and not self.gpus_per_trial.is_integer():
            raise ValueError(
                f"gpus_per_trial: {self.gpus_per_trial:g} is neither a share of one GPU nor a whole number"
            )
        if self.address not in (None, "auto") and not re.fullmatch(r"[^/:\s]+:\d{1,5}", str(self.address)):
            raise ValueError(
                f"address: expected null, auto or host:port of the cluster's head, got {self.address!r}"
            )
        return self


Control = Literal["none", "same", "mlp"]
_CONTROLS: list[Control] = ["none", "same", "mlp"]
Sampler = Literal["tpe", "random", "nsga2", "gp", "grid"]


class SearchSpec(Section):
    """How candidates are chosen, compared and run."""

    space: str = "paper"
    """A shipped name or a path."""
    strategy: Literal["proxies"] = "proxies"
    """`proxies`: every head is scored by a proxy of its own."""
    sampler: Sampler = "tpe"
    trials: Positive = 24
    """Distinct heads to train; controls and replicates are not counted."""
    finalists: Annotated[int, Field(ge=0)] = 3
    """The best heads, and the controls, are re-run until each has `replicates` seeds."""
    replicates: Positive = 3
    controls: list[Control] = Field(default_factory=lambda: _CONTROLS.copy())
    """Run before anything else."""
    discrepancy: str = "cka.embedding.output"
    """The measure that ranks: `<cka|mutual_knn|procrustes>.<embedding|tokens>.<output|change>`."""
    stopping: Annotated[HalvingSpec | NoStoppingSpec, Field(discriminator="kind")] = HalvingSpec()
    """Whether trials may end before their full budget. Controls and replicates never do."""
    executor: Annotated[InlineSpec | ProcessSpec | RaySpec, Field(discriminator="kind")] = InlineSpec()
    storage: str | None = None
    """null: study.db in the run directory; or any Optuna storage URL."""

    @model_validator(mode="before")
    @classmethod
    def _no_finalists_no_replicates(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("finalists") == 0 and "replicates" not in data:
            return {**data, "replicates": 1}
        return data

    @model_validator(mode="after")
    def _replicates_need_finalists(self) -> SearchSpec:
        if self.replicates > 1 and self.finalists == 0:
            raise ValueError(f"replicates: {self.replicates} needs finalists of at least 1, got 0")
        if len(set(self.controls)) != len(self.controls):
            raise ValueError(f"controls must not repeat, got {self.controls}")
        return self
