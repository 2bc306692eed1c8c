"""The JSON Schema accepts what the parser accepts, and refuses common mistakes."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
import yaml

from headsearch.heads import FAMILIES
from headsearch.shipped import shipped_folder
from headsearch.space import json_schema, parse_space, shipped_spaces

VALIDATOR = jsonschema.Draft202012Validator(json_schema())


def valid(text: str) -> bool:
    return bool(VALIDATOR.is_valid(yaml.safe_load("space: headsearch/space@1\n" + text)))


def test_the_schema_is_itself_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("name", shipped_spaces())
def test_shipped_spaces_are_valid(name: str) -> None:
    VALIDATOR.validate(
        yaml.safe_load((shipped_folder("search_spaces") / f"{name}.yaml").read_text(encoding="utf-8"))
    )


@pytest.mark.parametrize(
    "text",
    [
        "head: {convnext: }",
        "head: {vit: {num_heads: null}}",
        "head: {vit: {num_heads: {choice: [null, 4]}}}",
        "head: {vit: {drop_path: {float: [0.1, 0.2], log: true}, depth: {int: [1, 6], step: 2, default: 3}}}",
        "head: {stack: {repeat: {same: n}, each: {one_of: [{ref: h}, {mixer: {}}], default: mixer}}}\n"
        "define: {n: {int: [1, 2]}, h: {vit: {}}}",
        "head: {vit: {mlp_ratio: {int: [1, 4]}}}\nconstraints: [depth <= 2]\ndoc: words",
    ],
)
def test_what_the_parser_reads_is_valid(text: str) -> None:
    parse_space("space: headsearch/space@1\n" + text, "s.yaml")
    assert valid(text)


@pytest.mark.parametrize(
    "text",
    [
        "doc: no head",
        "head: vit",
        "head: {convnet: {}}",
        "head: {vit: {}, swin: {}}",
        "head: {vit: {depht: 1}}",
        "head: {vit: {depth: 99}}",
        "head: {vit: {depth: deep}}",
        "head: {vit: {depth: {choice: []}}}",
        "head: {vit: {depth: {choice: [1, 99]}}}",
        "head: {vit: {depth: {chioce: [1]}}}",
        "head: {vit: {depth: {int: [1]}}}",
        "head: {vit: {depth: {float: [1, 2]}}}",
        "head: {vit: {depth: {int: [1, 2], stp: 1}}}",
        "head: {resnet: {block: botleneck}}",
        "head: {one_of: []}",
        "head: {stack: {repeat: 2}}",
        "head: {vit: {}}\nhade: 1",
        "head: {vit: {}}\nconstraints: [3]",
        "head: {vit: {}}\nspace: headsearch/space@2",
    ],
)
def test_mistakes_are_not(text: str) -> None:
    assert not valid(text)


def test_every_family_and_parameter_is_described() -> None:
    definitions: dict[str, Any] = json_schema()["$defs"]
    for name, family in FAMILIES.items():
        body = definitions[f"family_{name}"]["properties"][name]
        assert body["description"] == family.doc
        assert {key: value["description"] for key, value in body["properties"].items()} == {
            p.name: p.doc for p in family.parameters
        }
