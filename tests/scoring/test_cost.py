"""Costs against heads that are really built and run."""

from __future__ import annotations

import time

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from headsearch.base.info import BaseInfo
from headsearch.errors import HeadError
from headsearch.heads import FAMILIES, HeadConfig, parse_head
from headsearch.heads.build import build_head
from headsearch.scoring.cost import head_cost

BASE = BaseInfo("vit_tiny_patch16_224", "vit", 64, (4, 6), 64, 4, 200_000, 10_000_000, 16)


@pytest.mark.parametrize("first_shortcut", [True, False])
@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_cost_is_that_of_the_built_head(name, first_shortcut):
    config = parse_head({name: {"depth": 3, "first_shortcut": first_shortcut}})
    head = build_head(config, BASE).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        head.embed(head(torch.randn(1, 64, 4, 6)))
    cost = head_cost(config, BASE)
    assert cost.params == sum(weight.numel() for weight in head.parameters())
    assert cost.flops == counter.get_total_flops() > 0
    assert cost.overhead is None


def test_mlp_flops_by_hand():
    # Two linear layers per position: 2 * 2 * 64 * 256 each, over 24 positions and 2 blocks.
    assert (
        head_cost(parse_head({"mlp": {"depth": 2, "mlp_ratio": 4.0}}), BASE).flops
        == 2 * 24 * 2 * 2 * 64 * 256
    )


def test_stages_add_up():
    one, other = {"convnext": {"depth": 1}}, {"mixer": {"depth": 2}}
    costs = [head_cost(parse_head(part), BASE) for part in (one, other, [one, other])]
    norm = 2 * 64
    assert costs[2].params == costs[0].params + costs[1].params - norm
    assert costs[2].flops == costs[0].flops + costs[1].flops


def test_the_empty_head_costs_nothing():
    cost = head_cost(HeadConfig(), BASE)
    assert (cost.params, cost.flops) == (0, 0)


def test_a_head_that_does_not_fit_is_refused():
    with pytest.raises(HeadError, match="num_heads"):
        head_cost(parse_head({"vit": {"num_heads": 7}}), BASE)


def test_counting_leaves_the_random_state_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    head_cost(parse_head({"resnet": {"depth": 5}}), BASE)
    assert torch.equal(torch.get_rng_state(), before)


def test_hundreds_of_heads_take_seconds():
    configs = [
        parse_head([{"convnext": {"depth": depth, "kernel_size": kernel}}, {"mlp": {"depth": after}}])
        for depth in range(1, 11)
        for kernel in (3, 5, 7, 9, 11)
        for after in range(1, 11)
    ]
    head_cost(configs[0], BASE)
    started = time.process_time()
    for config in configs:
        head_cost(config, BASE)
    assert time.process_time() - started < 10.0
