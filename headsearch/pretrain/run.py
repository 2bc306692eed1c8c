"""The loop of a pretraining: epochs, probes, checkpoints, and how ranks share a batch.

The order of the images, their views and their masks are drawn for the whole batch, from seed and step, and every rank takes its own rows: so
the number of ranks changes nothing but rounding, and a resumed training needs no generator states. (Dropped paths and dropout are
the exception: every rank draws its own.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from headsearch.errors import MissingPackage, RunError, require
from headsearch.files import write_result
from headsearch.methods.collectives import agreed, mean_over_ranks, on_first, rank
from headsearch.pretrain.observer import PretrainObserver
from headsearch.pretrain.outcome import write_outcome
from headsearch.pretrain.prepare import Setup, check_folder, identity, open_folder, prepare
from headsearch.pretrain.recipe import PretrainSpec
from headsearch.pretrain.result import PretrainInterrupted, PretrainResult, TrainingFailed
from headsearch.runs.directory import LEFT_OUT
from headsearch.signals import noted
from headsearch.training.checkpoint import Checkpoints
from headsearch.training.devices import generators_kept
from headsearch.training.loop import TrainingLoop, TrainingState
from headsearch.training.ranks import Place, own_rows, ranks
from headsearch.training.seeds import derived_generator, derived_seed

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_SCALAR_STEPS = 50
"""Steps between two points of the curves that TensorBoard shows."""


def run_pretraining(
    spec: PretrainSpec, out: Path, *, resume: bool, observer: PretrainObserver
) -> PretrainResult:
    """See `headsearch.pretrain.pretrain`."""
    with ranks(spec.recipe.device) as place, generators_kept(place.device):
        on_first(lambda: check_folder(out, spec, resume=resume))
        setup = prepare(spec, place)
        on_first(lambda: open_folder(out, spec))
        run = PretrainRun(spec, out, setup, place, observer if place.is_first else PretrainObserver())
        return run.run()


@dataclass
class PretrainState(TrainingState):
    """How far a pretraining is."""

    loss: float = math.nan
    """Mean of the last complete epoch."""
    knn: float | None = None
    """At the last probe."""


class PretrainRun(TrainingLoop[PretrainState]):
    """Trains one pair to the end of its schedule."""

    def __init__(
        self, spec: PretrainSpec, out: Path, setup: Setup, place: Place, observer: PretrainObserver
    ) -> None:
        """Go on from the newest checkpoint in `out`, where there is one.

        Raises:
            RunError: checkpoints of another training, or none of them readable.
        """
        self.spec = spec
        self.out = out
        self.setup = setup
        self.place = place
        self.observer = observer
        self._signals: list[int] = []
        super().__init__(
            setup.trainer,
            setup.images,
            seed=spec.seed,
            identity=identity(spec),
            checkpoints=Checkpoints(out / "checkpoints", keep=spec.recipe.keep_checkpoints),
            checkpoint_seconds=60 * spec.recipe.checkpoint_minutes,
            metrics=out / "metrics.jsonl",
            note=observer.note,
        )
        self._scalars = self._curves() if place.is_first else None

    def run(self) -> PretrainResult:
        """Train to the end of the schedule and write weights and model card.

        Raises:
            PretrainInterrupted: a signal came; everything done is in a checkpoint.
            RunError: a file cannot be written; what the last checkpoint holds is safe.
            TrainingFailed: the loss is not finite.
        """
        recipe = self.spec.recipe
        try:
            self._tell_of_images()
            self.observer.started(epochs=recipe.epochs, epoch=self._epochs, steps=self.trainer.steps)
            with noted() as self._signals:
                self.train()
            return on_first(self._finish)
        except RunError as error:
            raise RunError(f"{error}; fix that and continue with --resume") from error

    def _finish(self) -> PretrainResult:
        """For the first rank alone."""
        if self._scalars is not None:
            self._scalars.close()
        return write_outcome(self.spec, self.out, self.setup, self.result)

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

    def _new_state(self) -> PretrainState:
        return PretrainState()

    def _own(self, batch: Tensor) -> Tensor:
        return torch.cat([batch[rows] for rows in self._rows()])

    def _train(self, images: Tensor, step: int) -> Tensor:
        self._stop_if_asked()
        torch.manual_seed(derived_seed(self.seed, "network", step, rank()))
        own = self.trainer.step_in_parts(self._parts(images, step), self.spec.recipe.accumulate, step)
        loss = mean_over_ranks(own)
        if (step + 1) % _SCALAR_STEPS == 0:
            self._plot(step, {"loss": self._checked(float(loss)), **self._rates(step)})
        return loss

    def _epoch_ended(self, loss: float) -> None:
        state, recipe, left_out = self._state, self.spec.recipe, self.setup.dataset.left_out
        state.loss = loss
        record = self._record(loss) | self._rates(self._step - 1)
        if state.epoch == recipe.epochs or (recipe.probe_every and state.epoch % recipe.probe_every == 0):
            record |= on_first(lambda: self._probe(loss))
            state.knn = record["knn"]
        self._write("epoch", record)
        numbers = {key: value for key, value in record.items() if isinstance(value, int | float)}
        del numbers["epoch"]
        self._plot(self._step - 1, {"epoch_loss": numbers.pop("loss"), **numbers})
        self.observer.epoch_ended(record)
        for line in left_out.told_unreadable(self._told_unreadable):
            self.observer.note(f"epoch {state.epoch}: {line}")
            self._keep_left_out()
        self._save()

    def _tell_of_images(self) -> None:
        """What was understood of the images, and what is left out of them."""
        understood, *more = self.setup.dataset.told()
        self.observer.images_read(understood)
        for line in more:
            self.observer.note(line)
        self._keep_left_out()

    def _keep_left_out(self) -> None:
        left_out = self.setup.dataset.left_out
        self._told_unreadable = len(left_out.unreadable)
        if left_out and self.place.is_first:
            write_result(self.out / LEFT_OUT, left_out.listed())

    def _tell(self, loss: float) -> None:
        left = self.trainer.steps * self.spec.recipe.batch_size - self._state.images
        self.observer.progress(
            epoch=self._epochs,
            loss=loss,
            images_per_second=self.images_per_second,
            seconds_left=left / self.images_per_second,
        )

    def _not_finite(self, message: str) -> Exception:
        return TrainingFailed(
            f"{message}; a lower recipe.learning_rate may help, and {self.out} with --resume continues from its last checkpoint"
        )

    def _rows(self) -> list[slice]:
        return own_rows(self.spec.recipe.batch_size, self.spec.recipe.accumulate)

    def _parts(self, images: Tensor, step: int) -> Iterator[tuple[Sequence[Tensor], Tensor | None]]:
        """Views and masks of this rank's images, part by part."""
        masks = self.trainer.hssl.masks(
            self.spec.recipe.batch_size, derived_generator(self.spec.seed, "masks", step)
        )
        for rows, part in zip(self._rows(), images.chunk(self.spec.recipe.accumulate), strict=True):
            generator = derived_generator(self.spec.seed, "views", step)
            views = self.setup.views(
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
        with self.trainer.uncompiled():
            rung = self.setup.scorer.score(student, epoch=epoch, loss=loss, full_budget=full_budget)
        if rung.collapsed is not None:
            self.observer.note(f"epoch {epoch}: {rung.collapsed}")
        if rung.scores is None:
            return {"knn": None}
        scores = rung.scores.to_dict()
        return {
            key: scores[key]
            for key in ("knn", "linear", "discrepancy", "rankme_base", "rankme_head", "measures")
        }

    def _stop_if_asked(self) -> None:
        number = agreed(self._signals[-1] if self._signals else 0)
        if not number:
            return
        self._save()
        on_first(lambda: None)
        raise PretrainInterrupted(number, self._epochs)

    def _curves(self) -> SummaryWriter | None:
        try:
            require("tensorboard", extra="tensorboard", where="curves")
        except MissingPackage as error:
            self.observer.note(str(error))
            return None
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self.out / "tensorboard"), purge_step=self._step)

    def _plot(self, step: int, numbers: dict[str, float]) -> None:
        if self._scalars is None:
            return
        for name, value in numbers.items():
            self._scalars.add_scalar(name, value, step)
