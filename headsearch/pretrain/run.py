"""The loop of a pretraining: epochs, probes, checkpoints, and how ranks share a batch.

The order of the images, their views and their masks are drawn for the whole batch, from seed and step, and every rank takes its own rows: so
the number of ranks changes nothing but rounding, and a resumed training needs no generator states. (Dropped paths and dropout are
the exception: every rank draws its own.)
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from headsearch.data.sets import index_batches
from headsearch.methods.collectives import rank, sum_over_ranks, world_size
from headsearch.pretrain.checkpoints import Checkpoints
from headsearch.pretrain.distributed import Place, agreed, on_first, ranks
from headsearch.pretrain.observer import PretrainObserver, SilentPretrainObserver
from headsearch.pretrain.outcome import write_outcome
from headsearch.pretrain.prepare import Materials, check_folder, identity, open_folder, prepare
from headsearch.pretrain.recipe import PretrainSpec
from headsearch.pretrain.result import PretrainInterrupted, PretrainResult, TrainingFailed
from headsearch.pretrain.signals import StopSignals
from headsearch.training.metrics import MetricsLog
from headsearch.training.seeds import derived_generator, derived_seed

_PROGRESS_SECONDS = 0.5
_SCALAR_STEPS = 50
"""Steps between two points of the curves that TensorBoard shows."""


def run_pretraining(
    spec: PretrainSpec, out: Path, *, resume: bool, observer: PretrainObserver
) -> PretrainResult:
    """See `headsearch.pretrain.pretrain`."""
    with ranks(spec.recipe.device) as place:
        devices = [place.device] if place.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            on_first(lambda: check_folder(out, spec, resume=resume))
            materials = prepare(spec, place)
            on_first(lambda: open_folder(out, spec))
            run = PretrainRun(
                spec, out, materials, place, observer if place.is_first else SilentPretrainObserver()
            )
            with StopSignals() as signals:
                run.train(signals)
            return on_first(run.finish)


@dataclass
class _State:
    """How far a pretraining is."""

    epoch: int = 0
    """Complete epochs."""
    batch: int = 0
    """Steps done in the present epoch."""
    seconds: float = 0.0
    """Spent by earlier attempts."""
    train_seconds: float = 0.0
    images: int = 0
    """Trained on, for the throughput."""
    loss: float = math.nan
    """Mean of the last complete epoch."""
    knn: float | None = None
    """At the last probe."""
    metrics_size: int = 0


class PretrainRun:
    """Trains one pair to the end of its schedule."""

    def __init__(
        self, spec: PretrainSpec, out: Path, materials: Materials, place: Place, observer: PretrainObserver
    ) -> None:
        """Go on from the newest checkpoint in `out`, where there is one.

        Raises:
            RunError: checkpoints of another training, or none of them readable.
        """
        self.spec = spec
        self.out = out
        self.materials = materials
        self.place = place
        self.observer = observer
        self.trainer = materials.trainer
        self.checkpoints = Checkpoints(out / "checkpoints", keep=spec.recipe.keep_checkpoints)
        self._begun = self._saved = self._told = time.perf_counter()
        self._state, self._loss_sum = self._resumed()
        self._metrics: MetricsLog | None = None
        self._scalars: SummaryWriter | None = None
        if place.is_first:
            self._metrics, self._scalars = self._logs()

    def train(self, signals: StopSignals) -> None:
        """Train to the end of the schedule.

        Raises:
            PretrainInterrupted: a signal came; everything done is in a checkpoint.
            TrainingFailed: the loss is not finite.
        """
        recipe, state = self.spec.recipe, self._state
        self.observer.started(epochs=recipe.epochs, epoch=self._epochs, steps=self.trainer.steps)
        while state.epoch < recipe.epochs:
            record = self.train_epoch(signals)
            if state.epoch == recipe.epochs or (recipe.probe_every and state.epoch % recipe.probe_every == 0):
                record |= on_first(lambda: self._probe(state.loss))
                state.knn = record["knn"]
            self._write(record)
            self.observer.epoch_ended(record)
            self._save()

    def finish(self) -> PretrainResult:
        """Write weights and model card; for the first rank alone."""
        if self._scalars is not None:
            self._scalars.close()
        return write_outcome(self.spec, self.out, self.materials, self.result)

    @property
    def result(self) -> PretrainResult:
        """How it ended, before the files are written."""
        state = self._state
        return PretrainResult(
            weights=self.out / "base.safetensors",
            head_weights=self.out / "head.safetensors" if self.spec.head is not None else None,
            seconds=self.seconds,
            images_per_second=self.images_per_second,
            loss=state.loss,
            knn=state.knn,
        )

    @property
    def seconds(self) -> float:
        """Wall time over all attempts."""
        return self._state.seconds + time.perf_counter() - self._begun

    @property
    def images_per_second(self) -> float:
        """Training throughput of all ranks, probes left out."""
        return self._state.images / max(self._state.train_seconds, 1e-9)

    @property
    def _epochs(self) -> float:
        return self._state.epoch + self._state.batch / self.trainer.steps_per_epoch

    def train_epoch(self, signals: StopSignals) -> dict[str, Any]:
        """Train to the end of the present epoch; its line for `metrics.jsonl`. Raises as `train` does."""
        state, trainer, recipe = self._state, self.trainer, self.spec.recipe
        order = derived_generator(self.spec.seed, "order", state.epoch)
        batches = list(index_batches(len(self.materials.images), recipe.batch_size, order, drop_last=True))
        own = [torch.cat([batch[rows] for rows in self._rows()]) for batch in batches[state.batch :]]
        lap = time.perf_counter()
        for images in self.materials.images.read(own):
            self._stop_if_asked(signals)
            step = state.epoch * trainer.steps_per_epoch + state.batch
            torch.manual_seed(derived_seed(self.spec.seed, "network", step, rank()))
            own_loss = trainer.step_in_parts(self._parts(images, step), recipe.accumulate, step)
            loss = sum_over_ranks(own_loss) / world_size()
            self._loss_sum += loss
            state.batch += 1
            state.images += recipe.batch_size
            now = time.perf_counter()
            state.train_seconds += now - lap
            lap = now
            if (step + 1) % _SCALAR_STEPS == 0:
                self._plot(step, {"loss": self._checked(loss), **self._rates(step)})
            if self.place.is_first:
                if now - self._told > _PROGRESS_SECONDS:
                    self._tell(loss)
                if now - self._saved > 60 * recipe.checkpoint_minutes:
                    self._save()
        state.loss = self._checked(self._loss_sum / max(1, state.batch))
        state.train_seconds += time.perf_counter() - lap
        state.epoch, state.batch = state.epoch + 1, 0
        self._loss_sum.zero_()
        return {
            "epoch": state.epoch,
            "loss": state.loss,
            **self._rates(state.epoch * trainer.steps_per_epoch - 1),
            "images_per_second": self.images_per_second,
        }

    def _rows(self) -> list[slice]:
        """Which rows of a batch are this rank's: of every part, an equal share."""
        recipe = self.spec.recipe
        part = recipe.batch_size // recipe.accumulate
        share = part // world_size()
        starts = (index * part + rank() * share for index in range(recipe.accumulate))
        return [slice(start, start + share) for start in starts]

    def _parts(self, images: Tensor, step: int) -> Iterator[tuple[Sequence[Tensor], Tensor | None]]:
        """Views and masks of this rank's images, part by part."""
        masks = self.trainer.hssl.masks(
            self.spec.recipe.batch_size, derived_generator(self.spec.seed, "masks", step)
        )
        for rows, part in zip(self._rows(), images.chunk(self.spec.recipe.accumulate), strict=True):
            generator = derived_generator(self.spec.seed, "views", step)
            views = self.materials.views(
                part, generator, self.place.device, rows=rows, batch_size=self.spec.recipe.batch_size
            )
            yield views, None if masks is None else masks[:, rows]

    def _rates(self, step: int) -> dict[str, float]:
        trainer = self.trainer
        return {"learning_rate": trainer.learning_rate(step), "weight_decay": trainer.weight_decay(step)}

    def _probe(self, loss: float) -> dict[str, Any]:
        """What base and head make of held-out images; for the first rank alone. A collapse is told, and training goes on."""
        epoch = self._state.epoch
        student = self.trainer.hssl.student
        full_budget = epoch == self.spec.recipe.epochs
        rung = self.materials.scorer.score(student, epoch=epoch, loss=loss, full_budget=full_budget)
        if rung.collapsed is not None:
            self.observer.note(f"epoch {epoch}: {rung.collapsed}")
        if rung.scores is None:
            return {"knn": None}
        scores = rung.scores.to_dict()
        return {
            key: scores[key]
            for key in ("knn", "linear", "discrepancy", "rankme_base", "rankme_head", "measures")
        }

    def _stop_if_asked(self, signals: StopSignals) -> None:
        number = agreed(signals.received)
        if not number:
            return
        if self.place.is_first:
            self._save()
        on_first(lambda: None)
        raise PretrainInterrupted(number, self._epochs)

    def _checked(self, loss: Tensor) -> float:
        """A loss that all ranks have in common, as a number."""
        value = float(loss)
        if not math.isfinite(value):
            raise TrainingFailed(
                f"the loss is not finite ({value}, epoch {self._state.epoch + 1}); a lower recipe.learning_rate may help, "
                f"and {self.out} with --resume goes on from its last checkpoint"
            )
        return value

    def _tell(self, loss: Tensor) -> None:
        left = (
            self.trainer.steps * self.spec.recipe.batch_size - self._state.images
        ) / self.images_per_second
        self.observer.progress(
            epoch=self._epochs,
            loss=float(loss),
            images_per_second=self.images_per_second,
            seconds_left=left,
        )
        self._told = time.perf_counter()

    def _write(self, record: dict[str, Any]) -> None:
        """A line of `metrics.jsonl` and points of the curves, on the first rank."""
        if self._metrics is None:
            return
        self._metrics.append("epoch", record)
        numbers = {key: value for key, value in record.items() if isinstance(value, int | float)}
        del numbers["epoch"]
        self._plot(
            record["epoch"] * self.trainer.steps_per_epoch - 1, {"epoch_loss": numbers.pop("loss"), **numbers}
        )

    def _plot(self, step: int, numbers: dict[str, float]) -> None:
        if self._scalars is None:
            return
        for name, value in numbers.items():
            self._scalars.add_scalar(name, value, step)

    def _save(self) -> None:
        """Write a checkpoint, on the first rank. One with a loss that is not finite would replace a better one."""
        loss_sum = float(self._loss_sum)
        if not self.place.is_first or not math.isfinite(loss_sum):
            return
        assert self._metrics is not None
        state = {
            "identity": identity(self.spec),
            "trainer": self.trainer.state_dict(),
            "run": vars(self._state) | {"seconds": self.seconds, "metrics_size": self._metrics.size},
            "loss_sum": loss_sum,
        }
        self.checkpoints.save(self._state.epoch * self.trainer.steps_per_epoch + self._state.batch, state)
        self._saved = time.perf_counter()

    def _resumed(self) -> tuple[_State, Tensor]:
        """How far training is, and the sum of the losses of the present epoch."""
        saved = self.checkpoints.load(
            self.place.device, identity=identity(self.spec), note=self.observer.note
        )
        loss_sum = torch.zeros((), dtype=torch.float64, device=self.place.device)
        if saved is None:
            return _State(), loss_sum
        self.trainer.load_state_dict(saved["trainer"])
        return _State(**saved["run"]), loss_sum + saved["loss_sum"]

    def _logs(self) -> tuple[MetricsLog, SummaryWriter]:
        step = self._state.epoch * self.trainer.steps_per_epoch + self._state.batch
        return (
            MetricsLog(self.out / "metrics.jsonl", self._state.metrics_size),
            SummaryWriter(str(self.out / "tensorboard"), purge_step=step),
        )
