"""Two descriptions of one network share a canonical form and an id; different networks do not."""

import re
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from headsearch.errors import HeadError
from headsearch.heads import FAMILIES, HeadConfig, Parameter, Stage, canonical, head_id, parse_head
from headsearch.heads.build import Head
from headsearch.testing.heads import toy_base

BASE = toy_base(24, (3, 3))
HEADS_THAT_DIVIDE = (1, 2, 3, 4, 6)


def values(parameter: Parameter) -> st.SearchStrategy[Any]:
    if parameter.choices is not None:
        drawn: st.SearchStrategy[Any] = st.sampled_from(parameter.choices)
    elif parameter.kind == "bool":
        drawn = st.booleans()
    elif parameter.name == "depth":
        drawn = st.integers(1, 3)
    elif parameter.name == "num_heads":
        drawn = st.sampled_from(HEADS_THAT_DIVIDE)
    elif parameter.name == "drop_path":
        drawn = st.sampled_from([0.0, 0.1, 0.5])
    elif parameter.kind == "int":
        drawn = st.integers(int(parameter.low or 1), min(8, int(parameter.high or 8)))
    else:
        drawn = st.sampled_from([0.5, 1.0, 1.02, 1.3, 2.0])
    return st.one_of(st.none(), drawn) if parameter.nullable else drawn


@st.composite
def stages(draw: st.DrawFn) -> Stage:
    name = draw(st.sampled_from(sorted(FAMILIES)))
    return Stage(name, {parameter.name: draw(values(parameter)) for parameter in FAMILIES[name].parameters})


@st.composite
def heads(draw: st.DrawFn) -> HeadConfig:
    """One to three stages; one that follows is often like the one before, as merging is about those."""
    made = [draw(stages())]
    for _ in range(draw(st.integers(0, 2))):
        like = {"depth": draw(st.integers(1, 3)), "first_shortcut": draw(st.booleans())}
        made.append(draw(st.one_of(stages(), st.just(Stage(made[-1].family, {**made[-1].params, **like})))))
    return HeadConfig(tuple(made))


def literally(config: HeadConfig) -> tuple[list[tuple[int, ...]], Tensor, Head]:
    """The network exactly as described, without making the description canonical first: shapes of its state, and an output."""
    torch.manual_seed(0)
    head = Head(config, BASE.width, BASE.grid).eval()
    maps = torch.randn(2, BASE.width, *BASE.grid, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return [tuple(value.shape) for value in head.state_dict().values()], head(maps), head


@st.composite
def rewritten(draw: st.DrawFn, config: HeadConfig) -> HeadConfig:
    """Another description of the network that a canonical config builds."""
    result: list[Stage] = []
    for stage in config:
        params = dict(stage.params)
        depth = params["depth"]
        assert isinstance(depth, int)
        if params.get("mlp_ratio") is not None and draw(st.booleans()):
            params["mlp_ratio"] = float(params["mlp_ratio"] or 0) + 0.01  # 0.24 of a channel
        if stage.family == "resnet" and params["block"] == "basic":
            params["bottle_ratio"] = draw(st.sampled_from([0.25, 1.0]))
        if stage.family == "metaformer":
            unused = [name for name in ("kernel_size", "pool_size", "num_heads") if params[name] is None]
            params[draw(st.sampled_from(unused))] = 3
        if params.get("window") == 3:
            params["window"] = draw(st.integers(3, 9))
        if params.get("pool_size") == 5:
            params["pool_size"] = draw(st.sampled_from([5, 7, 9]))
        if depth == 1 and not params["first_shortcut"]:
            params["drop_path"] = draw(st.sampled_from([0.0, 0.3]))
        # A shifted Swin block counts from the start of its stage: cut where the count starts anew.
        cuts = range(2, depth, 2) if stage.family == "swin" else range(1, depth)
        cut = draw(st.sampled_from([0, *cuts]))
        if cut:
            result.append(Stage(stage.family, {**params, "depth": cut}))
            result.append(Stage(stage.family, {**params, "depth": depth - cut, "first_shortcut": True}))
        else:
            result.append(Stage(stage.family, params))
    return HeadConfig(tuple(result))


@given(st.data(), heads())
def test_descriptions_of_one_network_share_an_id_and_build_the_same(
    data: st.DataObject, config: HeadConfig
) -> None:
    one = canonical(config, BASE)
    other = data.draw(rewritten(one))
    assert canonical(other, BASE) == one
    assert head_id(canonical(other, BASE)) == head_id(one)
    assert canonical(one, BASE) == one
    shapes, output, _ = literally(one)
    assert one.depth == other.depth == config.depth
    other_shapes, other_output, _ = literally(other)
    assert shapes == other_shapes
    assert torch.equal(output, other_output)


@given(st.data(), heads())
def test_networks_that_differ_have_different_ids(data: st.DataObject, config: HeadConfig) -> None:
    one = canonical(config, BASE)
    index = data.draw(st.integers(0, len(config.stages) - 1))
    stage = config.stages[index]
    parameter = data.draw(st.sampled_from(FAMILIES[stage.family].parameters))
    changed = Stage(stage.family, {**stage.params, parameter.name: data.draw(values(parameter))})
    other = canonical(HeadConfig((*config.stages[:index], changed, *config.stages[index + 1 :])), BASE)
    (shapes, output, head), (other_shapes, other_output, other_head) = literally(one), literally(other)
    same = shapes == other_shapes and torch.equal(output, other_output) and str(head) == str(other_head)
    assert (head_id(one) == head_id(other)) == same


def test_adjacent_like_stages_are_one_stage() -> None:
    cut = parse_head(
        [{"vit": {"depth": 2, "first_shortcut": False}}, {"vit": {"depth": 1}}, {"vit": {"depth": 1}}]
    )
    assert canonical(cut) == canonical(parse_head({"vit": {"depth": 4, "first_shortcut": False}}))


def test_a_stage_without_first_shortcut_does_not_join_the_one_before() -> None:
    for depth in (1, 2):
        cut = parse_head([{"vit": {"depth": 1}}, {"vit": {"depth": depth, "first_shortcut": False}}])
        assert [stage.params["depth"] for stage in canonical(cut)] == [1, depth]


def test_a_lone_block_without_shortcut_joins_whatever_drop_path_follows() -> None:
    cut = parse_head(
        [{"vit": {"depth": 1, "first_shortcut": False}}, {"vit": {"depth": 1, "drop_path": 0.2}}]
    )
    assert canonical(cut) == canonical(
        parse_head({"vit": {"depth": 2, "first_shortcut": False, "drop_path": 0.2}})
    )


def test_a_long_run_is_cut_where_a_stage_may_end() -> None:
    long = canonical(HeadConfig(tuple(parse_head({"swin": {"depth": 5}}).stages * 5)))
    assert [stage.params["depth"] for stage in long] == [12, 12, 1]
    assert canonical(long) == long


def test_null_heads_are_one_per_32_channels_where_that_divides_the_width() -> None:
    for width, expected in ((16, 1), (48, 1), (64, 2), (96, 3), (160, 5), (100, 2), (768, 24)):
        stage = canonical(parse_head("vit"), toy_base(width)).stages[0]
        assert (width, stage.params["num_heads"]) == (width, expected)


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(HeadError, match="num_heads is 5: expected a divisor of the width 24 of toy"):
        canonical(parse_head({"swin": {"num_heads": 5}}), BASE)


def test_unused_heads_of_a_metaformer_are_not_checked() -> None:
    stage = canonical(parse_head({"metaformer": {"token_mixer": "pooling", "num_heads": 5}}), BASE).stages[0]
    assert stage.params["num_heads"] is None


def test_ids_are_readable_and_fit_for_file_names() -> None:
    named = {
        "convnext-d3-k7": {"convnext": {}},
        "convnext-d2-k5-noshortcut": {"convnext": {"depth": 2, "kernel_size": 5, "first_shortcut": False}},
        "vit-d1-m2": {"vit": {"depth": 1, "mlp_ratio": 2}},
        "metaformer-d3-pooling-p3": {"metaformer": {"token_mixer": "pooling"}},
        "vit+swin-d6": [{"vit": {}}, {"swin": {}}],
    }
    for slug, data in named.items():
        assert re.fullmatch(re.escape(slug) + "-[0-9a-f]{8}", head_id(canonical(parse_head(data))))
    assert head_id(HeadConfig()) == "none"
    every = head_id(canonical(HeadConfig(tuple(Stage(name) for name in FAMILIES))))
    assert re.fullmatch(r"stack11-d33-[0-9a-f]{8}", every)


def test_ids_do_not_change_between_releases() -> None:
    assert head_id(canonical(parse_head("convnext"), toy_base(192, (14, 14)))) == "convnext-d3-k7-ffba4ded"
