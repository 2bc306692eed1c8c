"""Reading YAML with positions, and refusing what is not plain data."""

from __future__ import annotations

import contextlib
import os
import re
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from headsearch.document import MapNode, ScalarNode, parse, plain, read_mapping, to_yaml
from headsearch.errors import HeadError, SpaceError


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("", "s.yaml:1:1: the file is empty"),
        ("# only a comment\n", "s.yaml:1:1: the file is empty"),
        ("a: [1, 2", "s.yaml:1:9: not valid YAML"),
        ("a: 1\n b: 2", "s.yaml:2:3: not valid YAML: a colon where no key can be"),
        ("a:\n  b: 1\n c: 2", "s.yaml:3:2: not valid YAML: indented unlike the lines before it"),
        ("a:\n\tb: 1", "s.yaml:2:1: not valid YAML: a tab; expected spaces"),
        ("a: \t- x\n\tb: 1", "s.yaml:1:4: not valid YAML"),
        ("a: 1\n---\nb: 2", "s.yaml:2:1: not valid YAML"),
        ("a: \x07", "s.yaml:1:4: not valid YAML: a character"),
        ("a: &x 1\nb: *x", "s.yaml:2:4: YAML alias '*x'"),
        ("a: &x [*x]", "s.yaml:1:8: YAML alias '*x'"),
        ("<<: {a: 1}", "s.yaml:1:1: a YAML merge"),
        ("a: !!python/object/apply:os.system ['true']", "s.yaml:1:4: the YAML tag"),
        ("a: !!set {x}", "s.yaml:1:4: the YAML tag"),
        ("a: !!int many", "s.yaml:1:4: 'many' cannot be read as int"),
        ('a: !!int ""', "s.yaml:1:4: '' cannot be read as int"),
        ("a: !!int 0x_", "s.yaml:1:4: '0x_' cannot be read as int"),
        ("a: !!bool x", "s.yaml:1:4: 'x' cannot be read as bool"),
        ("a: !!float 2:30", "s.yaml:1:4: '2:30' cannot be read as float"),
        ("a: !!null x", "s.yaml:1:4: 'x' cannot be read as null"),
        ("a: !!timestamp 2026-13-45", "s.yaml:1:4: the YAML tag"),
        ("a: !!binary aGk=", "s.yaml:1:4: the YAML tag"),
        ("a: !!map [1]", "s.yaml:1:4: the YAML tag"),
        ("a: !mine 1", "s.yaml:1:4: the YAML tag"),
        ('a: "\\UFFFFFFFF"', "s.yaml:1:"),
        ('a: "x \\ud83d"', "s.yaml:1:4: half of a character"),
        ('"\\ude00\\ud83d": 1', "s.yaml:1:1: half of a character"),
        ("%YAML 1." + "9" * 5000 + "\n---\na: 1", "s.yaml:1:"),
        ("a: \ud800", "s.yaml:1:4: not valid YAML: a character"),
        ("a: b\x00c", "s.yaml:1:5: not valid YAML: a character"),
        ("a: .nan", "s.yaml:1:4: '.nan' is not a finite number"),
        ("a: " + "9" * 5000, "s.yaml:1:4: "),
        ("a: 99999999999999999999", "s.yaml:1:4: a whole number beyond"),
        ("1: a", "s.yaml:1:1: the number 1 as a key"),
        ("? [a]\n: b", "s.yaml:1:3: a list as a key"),
        ("a: 1\nb: 2\na: 3", "s.yaml:3:1: the key 'a' is given twice (first at line 1, column 1)"),
        ("a: {b: 1, c: 2, b: 3}", "s.yaml:1:17: the key 'b' is given twice (first at line 1, column 5)"),
        ('a: 1\n"a": 2', "s.yaml:2:1: the key 'a' is given twice (first at line 1, column 1)"),
        ("yes: 1", "s.yaml:1:1: the flag true as a key"),
        ("- " * 5000, "s.yaml:1:121: nested more than 60 levels"),
        ("[" + "1," * 60_000 + "]", "s.yaml:1:50000: more than 25000 values"),
        ("a: " + "[" * 200 + "]" * 200, "s.yaml:1:63: nested more than 60 levels"),
        ("#" * 1_000_001, "s.yaml:1:1: 1000001 characters"),
    ],
)
def test_what_is_not_plain_data_is_refused_where_it_stands(text: str, start: str) -> None:
    with pytest.raises(SpaceError) as caught:
        parse(text, "s.yaml")
    assert str(caught.value).startswith(start)
    assert "\n" not in str(caught.value)


def test_nodes_know_their_place() -> None:
    root = parse("a:\n  b: 'text'\n", "s.yaml")
    assert isinstance(root, MapNode)
    inner = root.items["a"]
    assert isinstance(inner, MapNode)
    assert str(inner.keys["b"]) == "s.yaml:2:3"
    leaf = inner.items["b"]
    assert isinstance(leaf, ScalarNode)
    assert (leaf.value, str(leaf.where), leaf.text_offset) == ("text", "s.yaml:2:6", 1)


def test_folded_text_has_no_columns_of_its_own() -> None:
    root = parse("a: >\n  one\n  two\n", "s.yaml")
    assert isinstance(root, MapNode)
    leaf = root.items["a"]
    assert isinstance(leaf, ScalarNode)
    assert leaf.text_offset is None


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("1e-3", 0.001),
        ("1.5E3", 1500.0),
        (".5", 0.5),
        ("-1.", -1.0),
        ("1_000", 1000),
        ("0x1F", 31),
        ("0b101", 5),
        ("0o17", 15),
        ("-12", -12),
        ("yes", True),
        ("Off", False),
        ("~", None),
        ("", None),
        # Neither octal nor base 60 nor dates: nobody means those.
        ("0123", "0123"),
        ("2:30", "2:30"),
        ("190:20:30.15", "190:20:30.15"),
        ("2026-13-45", "2026-13-45"),
        ("2026-01-01", "2026-01-01"),
        ("0x_", "0x_"),
        ("0b_", "0b_"),
        ("1__0", "1__0"),
        ("1_", "1_"),
        ("1e999", "1e999"),
        ("\u0661\u0662", "\u0661\u0662"),
        ("oN", "oN"),
        ("~/x", "~/x"),
        ("=", "="),
        ('"\\ud83d\\ude00"', "\U0001f600"),
        ("!!str 12", "12"),
        ("!!float 3", 3.0),
        ("!!int 3", 3),
        ("'null'", "null"),
    ],
)
def test_a_word_means_what_people_mean_by_it(word: str, value: object) -> None:
    read = plain(parse(f"a: {word}", "s.yaml"))["a"]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize("text", ["\ufeffa: 1", "--- \na: 1\n...\n", "a: 1\r\n", "a: 1\x85"])
def test_marks_that_editors_leave_do_no_harm(text: str) -> None:
    assert plain(parse(text.removeprefix("\ufeff"), "s.yaml")) == {"a": 1}


_PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.from_regex(r"\A[-+]?[0-9_.:xobeE~]{1,12}\Z"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(_PLAIN)
@example({"\x85": None})
@example(["\u2028", "a\u2029 b"])
def test_what_is_written_is_read_back_equal(data: object) -> None:
    read = plain(parse(to_yaml(data), "s.yaml"))
    assert read == data
    assert repr(read) == repr(data)


def test_shared_parts_are_written_out() -> None:
    shared = {"b": 1}
    assert "&" not in to_yaml([shared, shared])


_SIGN_AND_POINT = re.compile(r"-\.[0-9][0-9_]*")
"""A number in YAML 1.2 and here, and a text in YAML 1.1, which the former writer wrote without quotes."""


def test_a_number_may_begin_with_a_sign_and_a_point() -> None:
    assert _SIGN_AND_POINT.fullmatch("-.15")
    assert plain(parse("a: -.15", "s.yaml"))["a"] == -0.15
    assert plain(parse(to_yaml({"a": "-.15"}), "s.yaml"))["a"] == "-.15"


@given(
    st.none()
    | st.booleans()
    | st.integers(0, 10**6)
    | st.floats(0, 1e6)
    | st.text("abc 1.:-_/", max_size=8).filter(lambda text: not _SIGN_AND_POINT.fullmatch(text))
)
def test_what_the_former_writer_wrote_is_read_as_it_was(value: object) -> None:
    text = yaml.safe_dump({"a": value})
    read = plain(parse(text, "s.yaml"))["a"]
    assert read == yaml.safe_load(text)["a"]


def test_aliases_that_multiply_are_refused_at_once() -> None:
    lines = ["a0: &a0 {x: 1}", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 25))]
    start = time.process_time()
    with pytest.raises(SpaceError, match=r"s\.yaml:2:\d+: YAML alias"):
        parse("\n".join(lines), "s.yaml")
    assert time.process_time() - start < 1.0


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a: \xff", "f.yaml:1:4: cannot be read: not text in UTF-8"),
        (b"a: 1\nb: \xe4 c", "f.yaml:2:4: cannot be read: not text in UTF-8"),
        ("a: 1".encode("utf-16"), "f.yaml:1:1: cannot be read: not text in UTF-8"),
        ("a: 1".encode("utf-16-le"), "f.yaml:1:2: not valid YAML: a character"),
        (b"x" * 4_000_001, "f.yaml: cannot be read: more than 4,000,000 bytes"),
        (b"", "f.yaml:1:1: the file is empty; expected a head"),
        (b"- 1", "f.yaml:1:1: a list; expected keys and values, a head"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(content: bytes, expected: str, tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_bytes(content)
    with pytest.raises(HeadError) as caught:
        read_mapping(file, HeadError, "a head", "f.yaml")
    assert str(caught.value).startswith(expected)


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name, what in (
        ("pipe", "a pipe, socket or device"),
        ("zero", "a pipe, socket or device"),
        (".", "a folder"),
        ("circle", "Too many levels of symbolic links"),
        ("dangling", "No such file"),
        ("x" * 300, "File name too long"),
        ("a\0b", "embedded null byte"),
    ):
        with pytest.raises(HeadError, match=f"cannot be read: {what}"):
            read_mapping(tmp_path / name, HeadError, "a head")


def test_a_mark_of_the_byte_order_is_no_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_bytes(b"\xef\xbb\xbfa: 1")
    assert plain(read_mapping(tmp_path / "f.yaml", HeadError, "a head")) == {"a": 1}


def test_reading_the_largest_text_takes_seconds_and_not_minutes() -> None:
    start = time.process_time()
    for text in (
        "#" * 1_000_000,
        "a: |\n" + " x\n" * 300_000,
        "- a\n" * 250_000,
        "? " * 500_000,
        "%TAG ! x\n" * 100_000,
    ):
        with contextlib.suppress(SpaceError):
            parse(text[:1_000_000], "s.yaml")
    assert time.process_time() - start < 60
