"""synflow and NASWOT against versions written out by hand, and what they ignore."""

from __future__ import annotations

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from headsearch.heads import FAMILIES, parse_head
from headsearch.heads.build import Head, build_head
from headsearch.scoring.baselines import naswot, synflow
from headsearch.testing.heads import toy_base

GRID = (2, 3)


def make(description, width=8, seed=0) -> Head:
    torch.manual_seed(seed)
    return build_head(parse_head(description), toy_base(width, GRID))


def head_of(block: nn.Module, width=8) -> Head:
    """A head whose only block is `block`."""
    head = make({"mlp": {"depth": 1}}, width)
    head.stages[0].blocks = nn.Sequential(block)
    return head


def test_synflow_of_two_linear_layers_is_the_sum_over_all_paths():
    torch.manual_seed(0)
    first, second = nn.Linear(3, 4, bias=False), nn.Linear(4, 3, bias=False)
    head = head_of(nn.Sequential(first, nn.ReLU(), second), width=3)
    a, b = first.weight.detach().double().abs().numpy(), second.weight.detach().double().abs().numpy()
    paths = sum(a[j, i] * b[k, j] for i, j, k in itertools.product(range(3), range(4), range(3)))
    # Every path has one weight of each layer, so each layer's saliencies sum to the flow; the input is 1 at 6 positions.
    assert synflow(head) == pytest.approx(math.log1p(2 * 6 * paths), rel=1e-9)


def test_synflow_is_what_finite_differences_of_the_flow_say():
    head = make({"convnext": {"depth": 2, "kernel_size": 3, "first_shortcut": False}})
    linear = copy.deepcopy(head).double().eval()
    for block in linear.stages[0].blocks:
        block.norm = nn.Identity()
    for parameter in linear.parameters():
        parameter.data.abs_()

    def flow() -> float:
        with torch.no_grad():
            return float(linear(torch.ones(1, 8, *GRID, dtype=torch.float64)).sum())

    # Scaling a whole layer by 1 + h moves the flow by h times the sum of θ ∂R/∂θ over the layer; all of them are positive.
    step, total = 1e-5, 0.0
    for layer in linear.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            kept = layer.weight.detach().clone()
            layer.weight.data = kept * (1 + step)
            above = flow()
            layer.weight.data = kept * (1 - step)
            total += (above - flow()) / (2 * step)
            layer.weight.data = kept
    assert synflow(head) == pytest.approx(math.log1p(total), rel=1e-7)


def test_synflow_sees_neither_signs_nor_norms_and_grows_with_depth_and_width():
    head = make({"resnet": {"depth": 1, "block": "basic"}})
    turned = copy.deepcopy(head)
    with torch.no_grad():
        for parameter in turned.parameters():
            parameter.mul_(-1.0)
        turned.norm.weight.fill_(9.0)
        for module in turned.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.fill_(7.0)
                module.running_var.fill_(5.0)
    value = synflow(head)
    assert synflow(turned) == value
    assert value < synflow(make({"resnet": {"depth": 2, "block": "basic"}}))
    assert value < synflow(make({"resnet": {"depth": 1, "block": "basic"}}, width=16))


def test_synflow_that_overflows_is_unknown():
    head = head_of(nn.Linear(8, 8))
    with torch.no_grad():
        head.stages[0].blocks[0].weight.fill_(1e30)
    blocks = head.stages[0].blocks
    blocks.extend(copy.deepcopy(blocks[0]) for _ in range(11))
    assert synflow(head) is None


def test_naswot_is_the_log_determinant_of_the_hamming_kernel():
    torch.manual_seed(0)
    first, second = nn.Linear(8, 5), nn.Linear(5, 8)
    head = head_of(nn.Sequential(first, nn.GELU(), second, nn.SiLU()))
    maps = torch.randn(9, 8, *GRID, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        x = maps.permute(0, 2, 3, 1).reshape(9, 6, 8)
        before_first = first(x)
        before_second = second(nn.functional.gelu(before_first))
    codes = np.concatenate(
        [(part > 0).reshape(9, -1).numpy() for part in (before_first, before_second)], axis=1
    )
    kernel = np.array([[codes.shape[1] - np.sum(one != other) for other in codes] for one in codes])
    assert codes.shape[1] == 6 * (5 + 8)
    assert naswot(head, maps) == pytest.approx(np.linalg.slogdet(kernel.astype(float))[1], rel=1e-9)


def test_images_that_switch_everything_alike_have_no_naswot():
    head = make({"mlp": {"depth": 1}})
    maps = torch.randn(4, 8, *GRID, generator=torch.Generator().manual_seed(1))
    assert naswot(head, maps) is not None
    assert naswot(head, maps[[0, 1, 2, 2]]) is None
    assert naswot(head_of(nn.Linear(8, 8)), maps) is None  # no rectifier


def test_naswot_looks_before_a_rectifier_that_works_in_place_and_leaves_no_hook():
    maps = torch.randn(6, 8, *GRID, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    linear = nn.Linear(8, 8)
    kept = head_of(nn.Sequential(linear, nn.ReLU(), nn.Linear(8, 8)))
    in_place = copy.deepcopy(kept)
    in_place.stages[0].blocks[0][1].inplace = True
    assert naswot(in_place, maps) == naswot(kept, maps)
    assert not any(module._forward_pre_hooks for module in kept.modules())


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_has_both(family):
    maps = torch.randn(8, 24, *GRID, generator=torch.Generator().manual_seed(1))
    head = make({family: {"depth": 2}}, width=24)
    assert naswot(head.eval(), maps) > 0
    assert synflow(head) > 0
