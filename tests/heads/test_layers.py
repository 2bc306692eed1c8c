"""Norm and activation unlike the base's: what the layers compute, that the families use them, and that defaults stay what they were."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from headsearch.heads import FAMILIES, canonical, head_id, parse_head
from headsearch.heads.blocks import BatchNormLast, GroupNormLast
from headsearch.heads.build import build_head
from headsearch.testing.heads import toy_base

BASE = toy_base(64, (4, 4))

# Ids of heads as they were named before families had norm and act: default parameters, without a base; and depth 2 without the first
# shortcut, on a base of width 64 and a 4×4 grid.
IDS = {
    "convnext": ("convnext-d3-k7-ffba4ded", "convnext-d2-k7-noshortcut-e11b9476"),
    "resnet": ("resnet-d3-bottleneck-fadb8273", "resnet-d2-bottleneck-noshortcut-96c259d8"),
    "mbconv": ("mbconv-d3-k3-e4-90fb3b59", "mbconv-d2-k3-e4-noshortcut-8569680d"),
    "vit": ("vit-d3-2bcbfd1f", "vit-d2-h2-noshortcut-ff7ba832"),
    "swin": ("swin-d3-w7-797134ad", "swin-d2-w4-h2-noshortcut-9eab9cee"),
    "mixer": ("mixer-d3-f3411e5d", "mixer-d2-noshortcut-3c666b36"),
    "resmlp": ("resmlp-d3-aee7f791", "resmlp-d2-noshortcut-b4360932"),
    "gmlp": ("gmlp-d3-2839580f", "gmlp-d2-noshortcut-325635b6"),
    "poolformer": ("poolformer-d3-p3-23e1ddf6", "poolformer-d2-p3-noshortcut-b18376f8"),
    "metaformer": ("metaformer-d3-sepconv-k7-342c1aeb", "metaformer-d2-sepconv-k7-noshortcut-7d450a80"),
    "mlp": ("mlp-d3-e9425a18", "mlp-d2-noshortcut-bd7325bf"),
}
WITH_KNOBS = [name for name in FAMILIES if name != "mlp"]


def knob(name: str, parameter: str) -> Any:
    return next(p for p in FAMILIES[name].parameters if p.name == parameter)


@pytest.mark.parametrize("name", IDS)
def test_default_heads_have_the_names_they_had(name: str) -> None:
    plain, shallow = IDS[name]
    assert head_id(canonical(parse_head(name))) == plain
    assert head_id(canonical(parse_head({name: {"depth": 2, "first_shortcut": False}}), BASE)) == shallow


def test_a_chosen_layer_is_named() -> None:
    head = canonical(parse_head({"convnext": {"norm": "batch", "act": "relu"}}))
    assert head_id(head).startswith("convnext-d3-k7-batch-relu-")
    assert head_id(canonical(parse_head({"vit": {"act": "silu"}}))).startswith("vit-d3-silu-")


@pytest.mark.parametrize("shape", [(6, 9, 8), (6, 3, 3, 8)], ids=["BNC", "BHWC"])
def test_batch_norm_with_channels_last_is_torchs(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    ours, theirs = BatchNormLast(8), nn.BatchNorm1d(8)
    for module in (ours, theirs):
        nn.init.uniform_(module.weight, 0.5, 2.0, generator=torch.Generator().manual_seed(1))
    x = torch.randn(shape) * 3 + 1
    for _ in range(2):
        torch.testing.assert_close(ours(x), theirs(x.reshape(-1, 8)).reshape(shape))
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(x), theirs(x.reshape(-1, 8)).reshape(shape))
    assert isinstance(ours, _BatchNorm), "what the teacher looks for"


@pytest.mark.parametrize("shape", [(6, 9, 8), (6, 3, 3, 8)], ids=["BNC", "BHWC"])
def test_group_norm_with_channels_last_normalises_each_image_as_a_whole(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape) * 3 + 1
    flat = x.flatten(1)
    expected = (flat - flat.mean(1, keepdim=True)) / (flat.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(GroupNormLast(8)(x), expected.reshape(shape))


def norms(module: nn.Module) -> list[str]:
    """The norms of a block by what they are, the gate's own of gMLP left out."""
    kinds = {"BatchNorm": "batch", "GroupNorm": "group", "LayerNorm": "layer", "Affine": "affine"}
    return [
        kind
        for key, part in module.named_modules()
        for prefix, kind in kinds.items()
        if type(part).__name__.startswith(prefix) and ".gate." not in key
    ]


@pytest.mark.parametrize("name", WITH_KNOBS)
def test_every_norm_of_a_block_is_the_one_asked_for(name: str) -> None:
    for choice in knob(name, "norm").choices:
        blocks = build_head(parse_head({name: {"depth": 1, "norm": choice}}), BASE).stages
        assert set(norms(blocks)) == {choice}


@pytest.mark.parametrize("name", WITH_KNOBS)
def test_every_activation_computes_what_it_is_called(name: str) -> None:
    functions = {"gelu": nn.functional.gelu, "relu": torch.relu, "silu": nn.functional.silu}
    x = torch.linspace(-3, 3, 61)
    for choice in set(knob(name, "act").choices) - {"starrelu"}:
        blocks = build_head(parse_head({name: {"depth": 1, "act": choice}}), BASE).stages
        found = [part for key, part in blocks.named_modules() if is_activation(key, part)]
        assert found, choice
        for part in found:
            torch.testing.assert_close(part(x.clone()), functions[choice](x))


def is_activation(key: str, part: nn.Module) -> bool:
    """Activations by their place; that of squeeze and excitation and the one inside a separable convolution are not the knob's, and an
    inverted residual ends without any."""
    named = key.rsplit(".", 1)[-1] in ("act", "act1", "act2", "act3")
    return named and not isinstance(part, nn.Identity) and ".se." not in key and "token_mixer" not in key


@pytest.mark.parametrize("name", WITH_KNOBS)
def test_every_choice_is_another_head(name: str) -> None:
    described = [
        {name: {"depth": 1, parameter: choice}}
        for parameter in ("norm", "act")
        for choice in knob(name, parameter).choices
    ]
    ids = {head_id(canonical(parse_head(data), BASE)) for data in described}
    # The defaults of both coincide: one head.
    assert len(ids) == len(described) - 1
    outputs: list[Tensor] = []
    maps = torch.randn(2, 64, 4, 4, generator=torch.Generator().manual_seed(1))
    for data in described:
        torch.manual_seed(0)
        outputs.append(build_head(parse_head(data), BASE)(maps))
    equal = sum(torch.equal(a, b) for i, a in enumerate(outputs) for b in outputs[:i])
    assert equal == 1


def test_the_control_mlp_has_nothing_to_choose() -> None:
    assert {"norm", "act"}.isdisjoint(parameter.name for parameter in FAMILIES["mlp"].parameters)
