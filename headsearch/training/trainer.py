"""One training run, step by step: views in, weights moved, loss out. It knows no data set, no scores and no files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from headsearch.experiment import ProxySpec
from headsearch.hssl import HSSL
from headsearch.training.devices import autocast_dtype
from headsearch.training.optimizer import build_optimizer, set_learning_rate
from headsearch.training.schedules import learning_rate, teacher_momentum


class Trainer:
    """A student/teacher pair with its optimiser and schedules."""

    def __init__(self, hssl: HSSL, proxy: ProxySpec, *, steps_per_epoch: int, device: torch.device) -> None:
        """Move `hssl` to the device, in training mode.

        Kernels are kept channels last: on a CPU that was never slower, and a MobileNet's step took 42 ms instead of 73.
        """
        self.hssl = hssl.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.hssl.train()
        self.proxy = proxy
        self.steps_per_epoch = steps_per_epoch
        self.steps = proxy.epochs * steps_per_epoch
        self.device = device
        self.autocast_dtype = autocast_dtype(proxy.precision, device)
        self.optimizer = build_optimizer(hssl.student, proxy.weight_decay)
        self._trained = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def step(self, views: Sequence[Tensor], step: int) -> Tensor:
        """Train on one batch of views (float, normalised, on the device); the loss before the update, a detached scalar.

        Nothing here waits for an accelerator. `step` counts from 0 over the whole run.
        """
        loss = self.losses(views, step).mean()
        self.update(loss, step)
        detached: Tensor = loss.detach()
        return detached

    def losses(self, views: Sequence[Tensor], step: int, active: Sequence[int] | None = None) -> Tensor:
        """The first half of a step: the loss of every head in `active`, None meaning all."""
        self.hssl.begin_step(step / self.steps_per_epoch, self.proxy.epochs)
        with torch.autocast(
            self.device.type, dtype=self.autocast_dtype, enabled=self.autocast_dtype is not None
        ):
            losses: Tensor = self.hssl.losses(views, active=active)
        return losses

    def update(self, loss: Tensor, step: int, active: Sequence[int] | None = None) -> None:
        """The second half of a step: move the weights, and let the teacher follow."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.hssl.after_backward(step / self.steps_per_epoch)
        if self.proxy.clip_gradient is not None:
            torch.nn.utils.clip_grad_norm_(self._trained, self.proxy.clip_gradient)
        set_learning_rate(self.optimizer, self.learning_rate(step))
        self.optimizer.step()
        momentum = teacher_momentum(step, steps=self.steps, start=self.proxy.teacher_momentum)
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
        warmup_steps = round((self.proxy.warmup_epochs or 0.0) * self.steps_per_epoch)
        return learning_rate(step, steps=self.steps, warmup_steps=warmup_steps, peak=self.proxy.learning_rate)

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes from step to step."""
        return {"hssl": self.hssl.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict` of a trainer built alike."""
        self.hssl.load_state_dict(state["hssl"])
        self.optimizer.load_state_dict(state["optimizer"])
