"""Head descriptions are read against the families' declarations."""

import subprocess
import sys

import pytest

from headsearch.errors import HeadError
from headsearch.heads import FAMILIES, HeadConfig, Stage, family, parse_head, validate_stage


def test_every_family_is_registered_under_its_own_name() -> None:
    assert {name: made.name for name, made in FAMILIES.items()} == {name: name for name in FAMILIES}
    assert set(FAMILIES) == {
        *("convnext", "resnet", "mbconv", "vit", "swin", "mixer"),
        *("resmlp", "gmlp", "poolformer", "metaformer", "mlp"),
    }


def test_reading_heads_does_not_import_torch() -> None:
    code = (
        "import sys; from headsearch.heads import *; from headsearch.heads import controls;"
        "head_id(canonical(parse_head({'vit': {}}))); sys.exit('torch' in sys.modules or 'timm' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_defaults_are_filled_in_and_types_normalised() -> None:
    stage = validate_stage("convnext", {"kernel_size": 9.0, "mlp_ratio": 2})
    assert stage.params == {
        "depth": 3,
        "first_shortcut": True,
        "drop_path": 0.0,
        "kernel_size": 9,
        "mlp_ratio": 2.0,
        "use_grn": False,
        "norm": "layer",
        "act": "gelu",
    }
    assert type(stage.params["kernel_size"]) is int
    assert type(stage.params["mlp_ratio"]) is float


def test_to_dict_and_parse_head_are_inverse() -> None:
    one = HeadConfig((validate_stage("vit", {"num_heads": 3}),))
    two = HeadConfig((*one.stages, validate_stage("swin", {"window": 4})))
    for config in (HeadConfig(), one, two, HeadConfig(members=(two, one))):
        assert parse_head(config.to_dict()) == config


def test_a_bare_family_name_is_a_head_of_its_defaults() -> None:
    assert parse_head(["vit", {"mlp": None}]) == HeadConfig(
        (validate_stage("vit", {}), validate_stage("mlp", {}))
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"convnet": {}}, "unknown family of heads 'convnet'; did you mean 'convnext'?"),
        ({"vit": {"dept": 3}}, "vit has no parameter 'dept'; did you mean 'depth'?"),
        ({"convnext": {"kernel_size": 4}}, "convnext.kernel_size is 4: expected one of 3, 5, 7, 9, 11, 13"),
        ({"vit": {"num_heads": 0}}, "vit.num_heads is 0: expected an integer from 1 to 128, or null"),
        ({"vit": {"depth": 2.5}}, "vit.depth is 2.5: expected an integer from 1 to 12"),
        ({"vit": {"depth": None}}, "vit.depth is null: expected an integer from 1 to 12"),
        ({"vit": {"mlp_ratio": True}}, "vit.mlp_ratio is true: expected a number from 0.5 to 16"),
        ({"vit": {"drop_path": float("nan")}}, "vit.drop_path is nan: expected a number from 0 to 0.9"),
        ({"vit": {"first_shortcut": 1}}, "vit.first_shortcut is 1: expected true or false"),
        ({"resnet": {"block": "x"}}, "resnet.block is 'x': expected one of 'basic', 'bottleneck'"),
        ({"set": []}, "the heads of a set are a list of at least one, not []"),
        ({"set": {"vit": {}}}, "the heads of a set are a list of at least one, not {'vit': {}}"),
        ({"set": [{"vit": {}}, None]}, "a set is of single heads; got None in one"),
        ({"set": [{"set": [{"vit": {}}, {"mixer": {}}]}]}, "a set is of single heads; got {'set'"),
        ([{"vit": {}}, {"set": [{"vit": {}}]}], "a set stands alone"),
        ({"vit": 3}, "the parameters of vit are a mapping of names to values, not 3"),
        ({"vit": {}, "swin": {}}, "a head is {family: parameters}, a list of those, {set: [...]}, or null"),
        (3, "a head is {family: parameters}, a list of those, {set: [...]}, or null; got 3"),
    ],
)
def test_a_wrong_description_is_one_line_that_says_what_was_expected(data: object, message: str) -> None:
    with pytest.raises(HeadError) as raised:
        parse_head(data)
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


def test_an_unknown_family_is_named_with_the_nearest() -> None:
    with pytest.raises(HeadError, match="did you mean 'poolformer'"):
        family("poolfomer")


def test_stages_are_values() -> None:
    assert len({Stage("vit", {"depth": 1}), Stage("vit", {"depth": 1}), Stage("vit", {"depth": 2})}) == 2


def test_paper_is_a_name_for_the_authors_head() -> None:
    wanted = {"convnext": {"depth": 2, "first_shortcut": False, "kernel_size": 7, "mlp_ratio": 4.0}}
    assert parse_head({"paper": {"depth": 2}}) == parse_head(wanted)
    assert parse_head("paper") == parse_head({"convnext": {"first_shortcut": False}})
    with pytest.raises(HeadError, match="convnext has no parameter 'window'"):
        parse_head({"paper": {"window": 7}})
