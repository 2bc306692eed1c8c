"""What decays and what does not."""

from __future__ import annotations

import timm
import torch
from torch import nn

from headsearch.training.optimizer import build_optimizer, parameter_groups, set_learning_rate


def decayed_names(model: nn.Module) -> set[str]:
    decayed = {id(parameter) for parameter in parameter_groups(model, 0.1)[0]["params"]}
    return {name for name, parameter in model.named_parameters() if id(parameter) in decayed}


def test_only_matrices_and_kernels_decay() -> None:
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=4, embed_dim=16, depth=1, num_heads=2
    )
    names = decayed_names(model)
    assert {"patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "head.weight"} <= names
    assert not {"cls_token", "pos_embed", "norm.weight", "norm.bias", "blocks.0.attn.qkv.bias"} & names


def test_every_trainable_parameter_is_in_one_group_and_no_frozen_one() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    model[2].weight.requires_grad_(False)
    groups = parameter_groups(model, 0.1)
    assert [len(group["params"]) for group in groups] == [1, 4]
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]


def test_a_decayed_weight_without_gradient_shrinks_by_the_rate_times_the_decay() -> None:
    model = nn.Linear(2, 2)
    before = model.weight.detach().clone(), model.bias.detach().clone()
    optimizer = build_optimizer(model, weight_decay=0.5)
    set_learning_rate(optimizer, 0.1)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(model.weight.detach(), before[0] * 0.95)
    torch.testing.assert_close(model.bias.detach(), before[1])
