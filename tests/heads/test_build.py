"""Heads built from timm's blocks: every family on any base, and the first block without its residuals."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from headsearch.errors import HeadError
from headsearch.heads import FAMILIES, HeadConfig, Stage, canonical, parse_head
from headsearch.heads.build import Head, build_head
from headsearch.testing.heads import check_family, toy_base


def build(data: object, width: int = 24, grid: tuple[int, int] = (3, 3), seed: int = 0) -> Head:
    torch.manual_seed(seed)
    return build_head(parse_head(data), toy_base(width, grid))


@pytest.mark.parametrize("name", FAMILIES)
def test_family_conforms(name: str) -> None:
    check_family(name)


@pytest.mark.parametrize("width", [96, 160, 960, 2048])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_builds_at_the_widths_of_real_bases(name: str, width: int) -> None:
    with torch.device("meta"):
        head = build({name: {"depth": 1}}, width, (7, 7))
        maps = torch.empty(2, width, 7, 7)
    assert head(maps).shape == maps.shape


VARIANTS: list[dict[str, dict[str, Any]]] = [
    {"convnext": {"use_grn": True, "kernel_size": 13}},
    *({"resnet": {"block": block, "norm": "layer", "act": "gelu"}} for block in ("basic", "bottleneck")),
    {"mbconv": {"se": False, "norm": "layer", "act": "relu", "exp_ratio": 1}},
    {"swin": {"window": 2, "depth": 2}},
    *(
        {"metaformer": {"token_mixer": mixer, "norm": norm, "act": act, "mlp_ratio": 1.5}}
        for mixer in ("sepconv", "pooling", "attention", "identity")
        for norm, act in (("layer", "gelu"), ("group", "starrelu"))
    ),
]


@pytest.mark.parametrize("data", VARIANTS, ids=str)
@pytest.mark.parametrize("first_shortcut", [True, False])
def test_every_choice_of_a_family_trains(data: dict[str, dict[str, Any]], first_shortcut: bool) -> None:
    [(name, params)] = data.items()
    head = build({name: {**params, "first_shortcut": first_shortcut}})
    maps = torch.randn(4, 24, 3, 3)
    head.embed(head(maps)).square().sum().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in head.parameters())


class SilentAt(nn.Module):
    """Takes the place of a DropPath and silences the branch at one of the block's calls of it."""

    def __init__(self, call: int) -> None:
        super().__init__()
        self.call = call
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * 0 if self.calls - 1 == self.call else x


def branch(block: nn.Module, number: int, x: Tensor) -> Tensor:
    """What one of the two residual branches of a block computes: the other is silenced and the input taken away."""
    block = copy.deepcopy(block)
    if hasattr(block, "drop_path1"):
        setattr(block, f"drop_path{2 - number}", SilentAt(0))
    else:
        block.drop_path = SilentAt(1 - number)
    return block(x) - x


@pytest.mark.parametrize(
    "data",
    [
        {"vit": {}},
        {"swin": {"window": 2}},
        {"mixer": {}},
        {"resmlp": {}},
        {"poolformer": {}},
        *(
            {"metaformer": {"token_mixer": mixer}}
            for mixer in ("sepconv", "pooling", "attention", "identity")
        ),
        {"convnext": {}},
        {"mbconv": {}},
        {"gmlp": {}},
        {"mlp": {}},
        {"resnet": {"block": "basic"}},
        {"resnet": {"block": "bottleneck"}},
    ],
    ids=str,
)
def test_first_shortcut_false_drops_exactly_the_residuals(data: dict[str, dict[str, Any]]) -> None:
    [(name, params)] = data.items()
    residual = build({name: {**params, "depth": 1}}).eval().stages[0].blocks[0]
    plain = build({name: {**params, "depth": 1, "first_shortcut": False}}, seed=1).eval().stages[0].blocks[0]
    plain.load_state_dict(residual.state_dict())
    shape = {"BCHW": (2, 24, 3, 3), "BHWC": (2, 3, 3, 24), "BNC": (2, 9, 24)}[FAMILIES[name].layout]
    x = torch.randn(shape)
    if name in ("convnext", "mbconv", "gmlp", "mlp"):
        expected = residual(x) - x
    elif name == "resnet":
        last = "act2" if params["block"] == "basic" else "act3"
        setattr(residual, last, nn.Identity())
        expected = torch.relu(residual(x) - x)
    else:
        expected = branch(residual, 1, branch(residual, 0, x))
    torch.testing.assert_close(plain(x), expected, atol=2e-5, rtol=1e-4)
    assert not torch.allclose(plain(x), residual(x), atol=1e-2)


@pytest.mark.parametrize("name", FAMILIES)
def test_only_the_first_block_loses_its_shortcut_and_its_drop_path(name: str) -> None:
    def drop_paths(block: nn.Module) -> int:
        return sum(type(module).__name__ == "DropPath" for module in block.modules())

    blocks = build({name: {"depth": 3, "first_shortcut": False, "drop_path": 0.5}}).stages[0].blocks
    assert [drop_paths(block) > 0 for block in blocks] == [False, True, True]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(name: str) -> None:
    first, again, other = (build({name: {"depth": 1}}, seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(value, again[key]) for key, value in first.items())
    assert any(not torch.equal(value, other[key]) for key, value in first.items())


def test_merged_descriptions_have_the_same_state_dict() -> None:
    whole, cut = build({"swin": {"depth": 3, "window": 2}}), build([{"swin": {"depth": 1, "window": 2}}] * 3)
    assert whole.config == cut.config
    assert all(torch.equal(value, cut.state_dict()[key]) for key, value in whole.state_dict().items())


def test_swin_shifts_every_second_window_and_never_one_that_covers_the_grid() -> None:
    shifts = [
        block.shift_size for block in build({"swin": {"depth": 4, "window": 4}}, 32, (7, 7)).stages[0].blocks
    ]
    assert shifts == [(0, 0), (2, 2), (0, 0), (2, 2)]
    whole = build({"swin": {"depth": 2, "window": 16}}, 32, (7, 7)).stages[0].blocks
    assert [(block.window_size, block.shift_size) for block in whole] == [((7, 7), (0, 0))] * 2


def test_swin_keeps_no_masks_when_copied_and_gives_the_same_after_another_grid() -> None:
    head = build({"swin": {"depth": 2, "window": 2}}, 24, (4, 4)).eval()
    small, large = torch.randn(2, 24, 4, 4), torch.randn(2, 24, 6, 6)
    before = head(small)
    head(large)
    assert torch.equal(head(small), before)
    assert torch.equal(pickle.loads(pickle.dumps(head))(small), before)
    assert torch.equal(copy.deepcopy(head)(small), before)


def test_the_empty_head_is_the_identity() -> None:
    head = build(None)
    maps = torch.randn(2, 24, 3, 3)
    assert head(maps) is maps
    assert head.config == HeadConfig()


def test_the_embedding_is_the_layer_norm_of_the_mean_over_positions() -> None:
    maps = torch.randn(5, 24, 3, 3)
    mean = maps.mean(dim=(2, 3))
    expected = (mean - mean.mean(1, keepdim=True)) / (mean.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(build({"vit": {"depth": 1}}).embed(maps), expected)


def test_a_head_does_not_change_its_input() -> None:
    for name in FAMILIES:
        maps = torch.randn(2, 24, 3, 3).contiguous(memory_format=torch.channels_last)
        before = maps.clone()
        build({name: {"depth": 2}})(maps)
        assert torch.equal(maps, before), name


def test_a_grid_bound_head_on_another_grid_says_so_in_one_line() -> None:
    head = build([{"vit": {"depth": 1}}, {"mixer": {"depth": 1}}])
    with pytest.raises(
        HeadError, match=r"vit\+mixer-d2-\w+ is tied to a grid of 3x3 positions: the map has 2x3 "
    ):
        head(torch.randn(1, 24, 2, 3))


def test_a_map_of_another_width_is_refused() -> None:
    with pytest.raises(HeadError, match="has width 24: the map has 32 channels"):
        build("vit")(torch.randn(1, 32, 3, 3))


def test_a_vit_head_is_timms_block_on_the_flattened_map() -> None:
    """The layouts: position (i, j) of the map is token i * columns + j."""
    head = build({"vit": {"depth": 1}}, 24, (2, 3)).eval()
    maps = torch.randn(1, 24, 2, 3)
    tokens = torch.stack([maps[0, :, i, j] for i in range(2) for j in range(3)])[None]
    expected = head.stages[0].blocks[0](tokens)[0]
    out = head(maps)
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(out[0, :, i, j], expected[3 * i + j])


def test_blocks_have_no_layer_scale_that_starts_near_zero() -> None:
    for name in FAMILIES:
        head = Head(canonical(HeadConfig((Stage(name, {"depth": 1}),)), toy_base()), 24, (3, 3))
        for key, weight in head.named_parameters():
            if weight.numel() == 24 and "bias" not in key and not key.endswith("beta"):
                assert torch.equal(weight, torch.ones_like(weight)), (name, key)
