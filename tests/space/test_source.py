"""Reading YAML with positions, and refusing what is not plain data."""

from __future__ import annotations

import pytest

from headsearch.errors import SpaceError
from headsearch.space.source import MapNode, ScalarNode, read_nodes


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("", "s.yaml:1:1: the file is empty"),
        ("# only a comment\n", "s.yaml:1:1: the file is empty"),
        ("a: [1, 2", "s.yaml:1:9: not valid YAML"),
        ("a: 1\n b: 2", "s.yaml:2:3: not valid YAML"),
        ("a: \t- x\n\tb: 1", "s.yaml:1:4: not valid YAML"),
        ("a: 1\n---\nb: 2", "s.yaml:2:1: not valid YAML"),
        ("a: \x07", "s.yaml:1:4: not valid YAML: a character"),
        ("a: &x 1\nb: *x", "s.yaml:2:4: YAML alias '*x'"),
        ("a: &x [*x]", "s.yaml:1:8: YAML alias '*x'"),
        ("<<: {a: 1}", "s.yaml:1:1: a YAML merge"),
        ("a: !!python/object/apply:os.system ['true']", "s.yaml:1:4: the YAML tag"),
        ("a: !!set {x}", "s.yaml:1:4: the YAML tag"),
        ("a: !!int many", "s.yaml:1:4: 'many' cannot be read as int"),
        ("a: 2026-01-01", "s.yaml:1:4: '2026-01-01' is read as a YAML timestamp"),
        ("a: .nan", "s.yaml:1:4: '.nan' is not a finite number"),
        ("a: 1e999", "s.yaml:1:4: '1e999' is not a finite number"),
        ("a: " + "9" * 5000, "s.yaml:1:4: "),
        ("a: 99999999999999999999", "s.yaml:1:4: a whole number beyond"),
        ("1: a", "s.yaml:1:1: the number 1 as a key"),
        ("? [a]\n: b", "s.yaml:1:3: a list as a key"),
        ("a: 1\nb: 2\na: 3", "s.yaml:3:1: the key 'a' is given twice (first at line 1)"),
        ("a: " + "[" * 200 + "]" * 200, "s.yaml:1:63: nested more than 60 levels"),
        ("#" * 1_000_001, "s.yaml:1:1: 1000001 characters"),
    ],
)
def test_what_is_not_plain_data_is_refused_where_it_stands(text: str, start: str) -> None:
    with pytest.raises(SpaceError) as caught:
        read_nodes(text, "s.yaml")
    assert str(caught.value).startswith(start)
    assert "\n" not in str(caught.value)


def test_nodes_know_their_place() -> None:
    root = read_nodes("a:\n  b: 'text'\n", "s.yaml")
    assert isinstance(root, MapNode)
    inner = root.items["a"]
    assert isinstance(inner, MapNode)
    assert str(inner.keys["b"]) == "s.yaml:2:3"
    leaf = inner.items["b"]
    assert isinstance(leaf, ScalarNode)
    assert (leaf.value, str(leaf.where), leaf.text_offset) == ("text", "s.yaml:2:6", 1)


def test_folded_text_has_no_columns_of_its_own() -> None:
    root = read_nodes("a: >\n  one\n  two\n", "s.yaml")
    assert isinstance(root, MapNode)
    leaf = root.items["a"]
    assert isinstance(leaf, ScalarNode)
    assert leaf.text_offset is None
