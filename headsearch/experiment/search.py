"""How a search goes: its space, its stages, its stopping, and where trials run."""

from __future__ import annotations

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
    executor: Annotated[InlineSpec | ProcessSpec, Field(discriminator="kind")] = InlineSpec()
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
