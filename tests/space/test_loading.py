"""Finding space files, and what the shipped ones hold."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from headsearch.base.info import BaseInfo
from headsearch.errors import SpaceError
from headsearch.heads import canonical
from headsearch.space import load_space, parse_space, shipped_spaces

DIGITS = BaseInfo("vit_tiny_patch16_224", "vit", 64, (4, 4), 64, 4, 204_000, 7_000_000, 16)


def test_the_shipped_spaces() -> None:
    assert {"metaformer", "paper", "tiny"} <= set(shipped_spaces())


@pytest.mark.parametrize(
    ("name", "meaning"),
    [("tiny", "0a07670d0385141a"), ("paper", "868baf3eaa952ac1"), ("metaformer", "43751ecccffd5a48")],
)
def test_runs_of_a_shipped_space_can_be_resumed_although_families_have_more_parameters_now(
    name: str, meaning: str
) -> None:
    assert load_space(name).hash == meaning, "as it was before families had norm and act"


@pytest.mark.parametrize("name", shipped_spaces())
def test_a_shipped_space_is_finite_documented_and_nearly_free_of_repeats(name: str) -> None:
    space = load_space(name)
    count, distinct = space.count(), space.count_distinct()
    assert space.doc
    assert count is not None
    assert distinct is not None
    # Both orders of a pair are one network, and a head with itself is none.
    most = count - count**0.5 if name == "sets" else count
    assert distinct >= 0.95 * (most / 2 if name == "sets" else most)
    rng = random.Random(0)
    assert {space.sample(rng) for _ in range(30)} | {space.default()} <= set(space.enumerate())


def test_tiny_gives_the_demo_enough_to_choose_from() -> None:
    space = load_space("tiny")
    heads = {canonical(head, DIGITS) for head in space.enumerate()}
    assert len(heads) == space.count(), "no two heads are the same network on the demo's base"
    assert len(heads) >= 10
    assert len({head.family for head in heads}) >= 5
    assert {head.depth for head in heads} == {1, 2, 3}


def test_a_file_is_found_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("space: headsearch/space@1\nhead: {vit: {}}\n", encoding="utf-8")
    assert load_space(path).count() == 1
    assert load_space(str(path)).name == str(path)


def test_a_mistyped_shipped_name_is_told_the_nearest() -> None:
    with pytest.raises(
        SpaceError, match=r"^tinny: neither a file nor a shipped space; did you mean 'tiny'\?$"
    ):
        load_space("tinny")


def test_unreadable_files_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match="no such file"):
        load_space(tmp_path / "nothing.yaml")
    with pytest.raises(SpaceError, match="cannot be read"):
        load_space(tmp_path)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpaceError, match="not text in UTF-8"):
        load_space(binary)


def test_the_example_in_the_docs_is_a_space() -> None:
    text = (Path(__file__).parents[2] / "docs" / "space.md").read_text(encoding="utf-8")
    example = text.split("## A file")[1].split("```yaml\n")[1].split("```")[0]
    assert parse_space(example, "docs").count() == 8 + 4
