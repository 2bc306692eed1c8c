"""AdamW for a student: weight decay on matrices and convolution kernels alone, one fused update for all tensors."""

from __future__ import annotations

import torch
from torch import nn

_NOT_DECAYED = {"cls_token", "reg_token", "pos_embed", "relative_position_bias_table"}
"""Learned inputs and biases that happen to have several dimensions."""


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Trainable parameters in two groups: matrices and kernels, which decay, and the rest (biases, norms, scales, tokens), which do not."""
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decays = parameter.ndim >= 2 and name.rpartition(".")[2] not in _NOT_DECAYED
        (decayed if decays else kept).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": kept, "weight_decay": 0.0},
    ]


def build_optimizer(model: nn.Module, weight_decay: float) -> torch.optim.AdamW:
    """AdamW over `model`'s trainable parameters. Its learning rate is set at every step, by `set_learning_rate`."""
    return torch.optim.AdamW(parameter_groups(model, weight_decay), fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Set the learning rate of all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = value


def set_weight_decay(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Set the weight decay of the group that decays, the first of `parameter_groups`."""
    optimizer.param_groups[0]["weight_decay"] = value
