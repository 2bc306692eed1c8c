"""What else is told how a search goes: `search.callbacks`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Tag

from headsearch.experiment.guests import CALLBACKS, GUEST, GuestCallback, kind_of
from headsearch.experiment.sections import Section


class TensorBoardSpec(Section):
    """Event files in the run directory."""

    kind: Literal["tensorboard"] = "tensorboard"


class MlflowSpec(Section):
    """Runs of MLflow."""

    kind: Literal["mlflow"] = "mlflow"
    tracking_uri: str | None = None
    """null: MLflow's own default (`MLFLOW_TRACKING_URI`)."""
    experiment: str | None = None
    """MLflow's experiment; null: the name of this one."""


class WandbSpec(Section):
    """Runs of Weights & Biases."""

    kind: Literal["wandb"] = "wandb"
    project: str = "headsearch"
    mode: Literal["online", "offline"] | None = None
    """null: wandb's own default (`WANDB_MODE`)."""


CallbackSpec = Annotated[
    Annotated[TensorBoardSpec, Tag("tensorboard")]
    | Annotated[MlflowSpec, Tag("mlflow")]
    | Annotated[WandbSpec, Tag("wandb")]
    | Annotated[GuestCallback, Tag(GUEST)],
    Discriminator(kind_of(CALLBACKS)),
]
