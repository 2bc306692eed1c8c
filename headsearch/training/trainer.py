"""One training run, step by step: views in, weights moved, loss out. It knows no data set, no scores and no files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from headsearch.experiment import ScheduleSpec
from headsearch.methods.collectives import average_gradients
from headsearch.methods.hssl import HSSL
from headsearch.training.devices import autocast_dtype, keep_freed_memory
from headsearch.training.optimizer import build_optimizer, set_learning_rate, set_weight_decay
from headsearch.training.ranks import synchronise_batch_norms
from headsearch.training.schedules import learning_rate, teacher_momentum, weight_decay


class Trainer:
    """A student/teacher pair with its optimiser and schedules.

    In one of several ranks the gradient is the mean over all of them; whoever builds the pairs sees to it that they are equal.
    """

    def __init__(
        self, hssl: HSSL, recipe: ScheduleSpec, *, steps_per_epoch: int, device: torch.device
    ) -> None:
        """Move `hssl` to the device, in training mode; its batch norms normalise by the batch of all ranks.

        Kernels are kept channels last: on a CPU that was never slower, and a MobileNet's step took 42 ms instead of 73.
        """
        if device.type == "cpu":
            keep_freed_memory()
        synchronise_batch_norms(hssl, device)
        self.hssl = hssl.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.hssl.train()
        self.recipe = recipe
        self.steps_per_epoch = steps_per_epoch
        self.steps = recipe.epochs * steps_per_epoch
        self.device = device
        self.autocast_dtype = autocast_dtype(recipe.precision, device)
        self.optimizer = build_optimizer(hssl.student, recipe.weight_decay)
        self._trained = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        if recipe.compile:
            self._compile()

    def _compile(self) -> None:
        # An earlier training of this process may have found that it could not, and what it compiled counts against torch's limits.
        torch.compiler.set_stance("default")
        torch.compiler.reset()
        for network in (self.hssl.student, self.hssl.teacher):
            for module in (network.base, *network.heads):
                # All modules share the code that is compiled, and of the heads of a screen all after the eighth would silently not be.
                module.compile(isolate_recompiles=True)

    def give_up_compiling(self, error: RuntimeError) -> str:
        """Take every further step without compiling, and tell why in one line. Raises `error` where it is none of the compiler's, or nothing was
        compiled."""
        if not self.recipe.compile:
            raise error
        # Importing it takes seconds.
        from torch._dynamo.exc import TorchDynamoException

        if not isinstance(error, TorchDynamoException):
            raise error
        torch.compiler.set_stance("force_eager")
        self.recipe = self.recipe.model_copy(update={"compile": False})
        return str(error).split("\n", 1)[0]

    def uncompiled(self) -> AbstractContextManager[object]:
        """Within, networks run as they are written: for batches of sizes that are rare."""
        return torch.compiler.set_stance("force_eager") if self.recipe.compile else nullcontext()

    def step(self, views: Sequence[Tensor], step: int, masks: Tensor | None = None) -> Tensor:
        """Train on one batch of views (float, normalised, on the device); the loss before the update, a detached scalar.

        Nothing here waits for an accelerator. `step` counts from 0 over the whole run. A method that hides draws its own `masks` where there
        are none.
        """
        return self.step_in_parts([(views, masks)], 1, step)

    def step_in_parts(
        self, parts: Iterable[tuple[Sequence[Tensor], Tensor | None]], count: int, step: int
    ) -> Tensor:
        """As `step`, with the batch in `count` parts of equal size: one after the other is drawn, seen and let go of, which bounds memory.
        A part is views and masks; None as masks has a method that hides draw them.

        The loss is their mean, in one of several ranks that of its own parts.
        """
        self.optimizer.zero_grad(set_to_none=True)
        seen: list[Tensor] = []
        for views, masks in parts:
            loss = torch.stack(self.losses(views, step, masks=masks)).mean() / count
            loss.backward()  # type: ignore[no-untyped-call]
            seen.append(loss.detach())
        self._move(step)
        return torch.stack(seen).sum()

    def losses(
        self,
        views: Sequence[Tensor],
        step: int,
        active: Sequence[int] | None = None,
        masks: Tensor | None = None,
    ) -> list[Tensor]:
        """The first half of a step, for who wants to look at it: the loss of every head in `active`, None meaning all."""
        self.hssl.begin_step(step / self.steps_per_epoch, self.recipe.epochs)
        with torch.autocast(
            self.device.type, dtype=self.autocast_dtype, enabled=self.autocast_dtype is not None
        ):
            losses: list[Tensor] = self.hssl.losses(views, active=active, masks=masks)
        return losses

    def update(self, loss: Tensor, step: int, active: Sequence[int] | None = None) -> None:
        """The second half: move the weights down `loss`, and let the teacher follow."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._move(step, active)

    def _move(self, step: int, active: Sequence[int] | None = None) -> None:
        self.hssl.after_backward(step / self.steps_per_epoch)
        average_gradients(self._trained)
        if self.recipe.clip_gradient:
            torch.nn.utils.clip_grad_norm_(self._trained, self.recipe.clip_gradient)
        set_learning_rate(self.optimizer, self.learning_rate(step))
        set_weight_decay(self.optimizer, self.weight_decay(step))
        self.optimizer.step()
        momentum = teacher_momentum(step, steps=self.steps, start=self.recipe.teacher_momentum)
        self.hssl.update_teacher(momentum, active)

    def drop(self, index: int) -> None:
        """Let go of a head, with its optimiser state."""
        dropped = set(self.hssl.drop(index))
        for group in self.optimizer.param_groups:
            group["params"] = [parameter for parameter in group["params"] if parameter not in dropped]
        for parameter in dropped:
            self.optimizer.state.pop(parameter, None)
        self._trained = [parameter for parameter in self._trained if parameter not in dropped]

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step."""
        warmup_steps = round(self.recipe.warmup_epochs * self.steps_per_epoch)
        return learning_rate(
            step, steps=self.steps, warmup_steps=warmup_steps, peak=self.recipe.learning_rate
        )

    def weight_decay(self, step: int) -> float:
        """The weight decay of a step, for what decays."""
        recipe = self.recipe
        return weight_decay(step, steps=self.steps, start=recipe.weight_decay, end=recipe.weight_decay_end)

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes from step to step."""
        return {"hssl": self.hssl.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict` of a trainer built alike."""
        self.hssl.load_state_dict(state["hssl"])
        self.optimizer.load_state_dict(state["optimizer"])
