"""The result of a pretraining. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from headsearch.errors import HeadsearchError


@dataclass(frozen=True)
class PretrainResult:
    """The result of a pretraining that ran its whole schedule."""

    weights: Path
    """The base's weights, `base.safetensors`: `timm.create_model(model, checkpoint_path=weights, num_classes=0, **kwargs)` loads them."""
    head_weights: Path | None
    """The head's weights, `head.safetensors`; None for the control without a head."""
    seconds: float
    """Wall time over all attempts."""
    images_per_second: float
    """Training throughput of all ranks together, without probes."""
    loss: float
    """Mean loss of the last epoch."""
    knn: float | None
    """k-NN accuracy of the frozen base at the end, in percent; None without labels or probes."""

    @property
    def folder(self) -> Path:
        """The folder of the pretraining."""
        return self.weights.parent


class PretrainInterrupted(HeadsearchError):
    """A signal asked the training to end; a checkpoint was written before. Not a mistake."""

    def __init__(self, signal: int, epoch: float) -> None:
        """`signal` is its number, `epoch` how far training was."""
        super().__init__(signal, epoch)
        self.signal = signal
        self.epoch = epoch

    def __str__(self) -> str:
        return f"interrupted at epoch {self.epoch:.2f}; a checkpoint is written"


class TrainingFailed(HeadsearchError):
    """The loss is not finite: nothing useful can come of going on."""
