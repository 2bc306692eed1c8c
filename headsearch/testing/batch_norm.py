"""Batch norm over all ranks on a CPU, for which torch has none: `torch.nn.SyncBatchNorm` computes on accelerators alone.

Tests show on CPU ranks that ranks do not change a training; what they put in its place must be right, not fast.
"""

from __future__ import annotations

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from headsearch.methods.collectives import sum_over_ranks, world_size
from headsearch.pretrain import prepare


class _SynchronisedBatchNorm(_BatchNorm):
    """Takes over another batch norm's weights and buffers; activation and dropout of timm's variety come after it."""

    def __init__(self, original: _BatchNorm) -> None:
        super().__init__(
            original.num_features,
            original.eps,
            original.momentum,
            original.affine,
            original.track_running_stats,
        )
        self.weight, self.bias = original.weight, original.bias
        self.running_mean, self.running_var = original.running_mean, original.running_var
        self.num_batches_tracked = original.num_batches_tracked
        self.training = original.training
        self.after: nn.Module = nn.Identity()
        if isinstance(original, BatchNormAct2d):
            self.after = nn.Sequential(*(original.get_submodule(name) for name in ("drop", "act")))

    def forward(self, x: Tensor) -> Tensor:
        """As the original, with mean and variance of the samples of all ranks."""
        output: Tensor = self.after(self._by_batch(x) if self.training else super().forward(x))
        return output

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions."""

    def _by_batch(self, x: Tensor) -> Tensor:
        others = [dim for dim in range(x.ndim) if dim != 1]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        count = _total(x.new_tensor(x.numel() // x.shape[1]))
        mean = _total(x.sum(dim=others)) / count
        centred = x - mean.view(shape)
        variance = _total(centred.square().sum(dim=others)) / count
        if self.track_running_stats:
            self._follow(mean, variance * count / (count - 1))
        normalised = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            normalised = normalised * self.weight.view(shape) + self.bias.view(shape)
        return normalised

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        rate = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, rate)
        self.running_var.lerp_(variance, rate)


class _Total(torch.autograd.Function):
    """The sum over ranks; so is its gradient, since every rank's loss depends on every rank's x."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return sum_over_ranks(x)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return sum_over_ranks(gradient)


def _total(x: Tensor) -> Tensor:
    total: Tensor = _Total.apply(x)
    return total


def synchronise_on_cpu() -> None:
    """From now on, pretrainings of this process normalise by the batch of all CPU ranks."""

    def synchronise(module: nn.Module, device: torch.device) -> None:
        if world_size() > 1:
            for name, child in list(module.named_children()):
                module.add_module(name, synchronised_on_cpu(child))

    prepare.synchronise_batch_norms = synchronise  # type: ignore[attr-defined]


def synchronised_on_cpu(module: nn.Module) -> nn.Module:
    """The module with its batch norms replaced, in place below it. Names of parameters and buffers do not change."""
    if isinstance(module, _BatchNorm):
        return _SynchronisedBatchNorm(module)
    for name, child in list(module.named_children()):
        module.add_module(name, synchronised_on_cpu(child))
    return module
