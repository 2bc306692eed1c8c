"""What the language accepts, and where and how it refuses."""

from __future__ import annotations

import re
import textwrap

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from headsearch.errors import SpaceError
from headsearch.heads import HeadConfig, parse_head
from headsearch.shipped import shipped_folder
from headsearch.space import Space, parse_space
from headsearch.space.schema import json_schema

TAG = "space: headsearch/space@1\n"


def parse(text: str) -> Space:
    return parse_space(TAG + textwrap.dedent(text), "s.yaml")


def refusal(text: str) -> str | None:
    try:
        parse_space(text, "s.yaml")
    except SpaceError as error:
        return str(error)
    return None


def is_one_located_line(message: str | None) -> bool:
    return message is not None and re.fullmatch(r"s\.yaml:\d+:\d+: .+", message) is not None


MISTAKES = {
    "unknown family": ("head: {convnet: {}}", "2:8", "unknown family 'convnet'; did you mean 'convnext'?"),
    "unknown family in one_of": (
        "head:\n  one_of:\n  - vit: {}\n  - swim: {}",
        "5:5",
        "did you mean 'swin'?",
    ),
    "unknown parameter": ("head: {convnext: {kernal_size: 3}}", "2:19", "did you mean 'kernel_size'?"),
    "unknown domain": ("head: {convnext: {depth: {chioce: [1]}}}", "2:27", "did you mean 'choice'?"),
    "unknown key": ("hade: 1\nhead: {vit: {}}", "2:1", "unknown key 'hade'; did you mean 'head'?"),
    "unknown option": ("head: {vit: {depth: {int: [1, 2], stp: 1}}}", "2:35", "did you mean 'step'?"),
    "unknown stack key": ("head: {stack: {repeat: 2, eahc: {vit: {}}}}", "2:27", "did you mean 'each'?"),
    "option of another domain": (
        "head: {vit: {depth: {choice: [1], log: true}}}",
        "2:35",
        "unknown key 'log' beside 'choice'",
    ),
    "two kinds": (
        "head: {vit: {depth: {choice: [1], int: [1, 2]}}}",
        "2:35",
        "'choice' and 'int' in one mapping",
    ),
    "two families": (
        "head: {vit: {}, swin: {}}",
        "2:17",
        "'vit' and 'swin' in one mapping; expected one of them; expected one_of",
    ),
    "bare family": ("head: vit", "2:7", "did you mean {vit: {}}?"),
    "list as head": ("head: [vit]", "2:7", "a list as a head"),
    "list as value": ("head: {vit: {depth: [1, 2]}}", "2:21", "expected {choice: […]}"),
    "family as value": (
        "head: {vit: {depth: {swin: {}}}}",
        "2:22",
        "'swin' is a head, and a value is expected",
    ),
    "domain as head": ("head: {choice: [1]}", "2:8", "'choice' draws a value, and a head is expected"),
    "empty mapping as head": ("head: {}", "2:7", "a mapping that says nothing as a head"),
    "no parameters but text": ("head: {vit: deep}", "2:13", "the text 'deep' under 'vit'"),
    "value too high": (
        "head: {vit: {depth: 99}}",
        "2:21",
        "vit.depth is 99: expected an integer from 1 to 12",
    ),
    "one choice too high": ("head: {vit: {depth: {choice: [1, 99]}}}", "2:34", "vit.depth is 99"),
    "low end too low": ("head: {vit: {depth: {int: [0, 3]}}}", "2:28", "vit.depth is 0"),
    "high end too high": ("head: {vit: {depth: {int: [1, 99]}}}", "2:31", "vit.depth is 99"),
    "range over a few choices": (
        "head: {convnext: {kernel_size: {int: [3, 5]}}}",
        "2:32",
        "convnext.kernel_size is 4",
    ),
    "wrong type": ("head: {vit: {depth: yes}}", "2:21", "vit.depth is true: expected an integer"),
    "wrong text": (
        "head: {resnet: {block: bottelneck}}",
        "2:24",
        "expected one of 'basic', 'bottleneck'; did you mean 'bottleneck'?",
    ),
    "float for an integer": (
        "head: {vit: {depth: {float: [1, 2]}}}",
        "2:21",
        "vit.depth is drawn from 1…2 real",
    ),
    "float out of bounds": ("head: {vit: {drop_path: {float: [0, 1.5]}}}", "2:37", "vit.drop_path is 1.5"),
    "bounds reversed": (
        "head: {vit: {depth: {int: [4, 1]}}}",
        "2:27",
        "the wrong way round: [4, 1]; did you mean [1, 4]?",
    ),
    "float bounds reversed": (
        "head: {vit: {drop_path: {float: [0.2, 0.1]}}}",
        "2:33",
        "did you mean [0.1, 0.2]?",
    ),
    "one bound": ("head: {vit: {depth: {int: [4]}}}", "2:27", "a list of 1 under 'int'; expected two bounds"),
    "bound is no number": (
        "head: {vit: {depth: {int: [1, many]}}}",
        "2:31",
        "the text 'many'; expected a whole number",
    ),
    "fraction as bound": ("head: {vit: {depth: {int: [1, 2.5]}}}", "2:31", "expected a whole number"),
    "step zero": ("head: {vit: {depth: {int: [1, 4], step: 0}}}", "2:41", "a step of 0; expected at least 1"),
    "log of zero": (
        "head: {vit: {drop_path: {float: [0, 0.5], log: true}}}",
        "2:34",
        "with 'log'; expected more than 0",
    ),
    "log with step": (
        "head: {vit: {depth: {int: [1, 4], step: 2, log: true}}}",
        "2:41",
        "'step' together with 'log'",
    ),
    "log is no flag": ("head: {vit: {depth: {int: [1, 4], log: 1}}}", "2:40", "expected true or false"),
    "empty choice": ("head: {vit: {depth: {choice: []}}}", "2:30", "a choice of no values"),
    "choice twice": ("head: {vit: {depth: {choice: [1, 2, 1.0]}}}", "2:37", "given twice"),
    "list in choice": ("head: {vit: {depth: {choice: [[1]]}}}", "2:31", "a list in a choice"),
    "default outside choice": (
        "head: {vit: {depth: {choice: [1, 2], default: 3}}}",
        "2:47",
        "not among the values",
    ),
    "default outside int": (
        "head: {vit: {depth: {int: [1, 5], step: 2, default: 2}}}",
        "2:53",
        "outside the domain",
    ),
    "default outside float": (
        "head: {vit: {drop_path: {float: [0.1, 0.2], default: 0.3}}}",
        "2:54",
        "outside the domain",
    ),
    "default outside one_of": ("head: {one_of: [{vit: {}}], default: vti}", "2:38", "did you mean 'vit'?"),
    "empty one_of": ("head: {one_of: []}", "2:16", "an empty list under 'one_of'"),
    "one_of without list": ("head: {one_of: {vit: {}}}", "2:16", "a mapping under 'one_of'"),
    "stack without each": ("head: {stack: {repeat: 2}}", "2:15", "a stack without 'each'"),
    "repeat zero": ("head: {stack: {repeat: 0, each: {vit: {}}}}", "2:24", "'repeat' may be 0"),
    "repeat of text": (
        "head: {stack: {repeat: {choice: [1, two]}, each: {vit: {}}}}",
        "2:24",
        "'repeat' may be two",
    ),
    "repeat real": (
        "head: {stack: {repeat: {float: [1, 2]}, each: {vit: {}}}}",
        "2:24",
        "expected whole numbers from 1 to 32",
    ),
    "undefined": (
        "define: {kernel: 3}\nhead: {convnext: {kernel_size: {ref: kernle}}}",
        "3:38",
        "did you mean 'kernel'?",
    ),
    "nothing defined": (
        "head: {convnext: {kernel_size: {same: k}}}",
        "2:39",
        "'k' is not defined; nothing is defined",
    ),
    "value defined, head used": ("define: {x: 3}\nhead: {ref: x}", "3:13", "'x' is defined as a value"),
    "head defined, value used": (
        "define: {x: {vit: {}}}\nhead: {vit: {depth: {ref: x}}}",
        "3:27",
        "'x' is defined as a head",
    ),
    "wrong value through ref": ("define: {x: 99}\nhead: {vit: {depth: {ref: x}}}", "3:21", "vit.depth is 99"),
    "wrong value through same": (
        "define: {x: {choice: [1, 99]}}\nhead: {vit: {depth: {same: x}}}",
        "3:21",
        "vit.depth is 99",
    ),
    "circle of values": ("define:\n  a: {ref: b}\n  b: {ref: a}\nhead: {vit: {}}", "4:12", "a → b → a"),
    "circle of heads": ("define:\n  a: {one_of: [{vit: {}}, {ref: a}]}\nhead: {vit: {}}", "3:33", "a → a"),
    "mistake in what is unused": (
        "define: {a: {vit: {depht: 1}}}\nhead: {vit: {}}",
        "2:20",
        "unknown parameter 'depht' of vit; did you mean 'depth'?",
    ),
    "family as definition": ("define: {vit: 3}\nhead: {vit: {}}", "2:10", "has the name of a family"),
    "reserved definition": ("define: {choice: 3}\nhead: {vit: {}}", "2:10", "reserved name"),
    "slot as definition": ("define: {slot1: 3}\nhead: {vit: {}}", "2:10", "reserved name"),
    "odd definition name": (
        "define: {a-b: 3}\nhead: {vit: {}}",
        "2:10",
        "expected letters, digits and underscores",
    ),
    "define is a list": ("define: [1]\nhead: {vit: {}}", "2:9", "expected names with their domains"),
    "no head": ("doc: x", "1:1", "no 'head'"),
    "doc is a list": ("doc: [x]\nhead: {vit: {}}", "2:6", "expected a text"),
    "constraints is text": (
        "head: {vit: {}}\nconstraints: depth <= 2",
        "3:14",
        "expected a list of conditions",
    ),
    "constraint is a number": ("head: {vit: {}}\nconstraints: [3]", "3:15", "the number 3 as a constraint"),
    "duplicate key": (
        "head: {vit: {depth: 1, depth: 2}}",
        "2:24",
        "the key 'depth' is given twice (first at line 2, column 14)",
    ),
    "duplicate top key": (
        "head: {vit: {}}\nhead: {vit: {}}",
        "3:1",
        "given twice (first at line 2, column 1)",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_that_says_where_and_what(name: str) -> None:
    text, position, message = MISTAKES[name]
    with pytest.raises(SpaceError) as caught:
        parse(text)
    shown = str(caught.value)
    assert shown.startswith(f"s.yaml:{position}: ")
    assert message in shown
    assert "\n" not in shown


def test_a_wrong_format_tag_is_refused() -> None:
    with pytest.raises(SpaceError, match=r"^s.yaml:1:8: .*space@2.* expected 'headsearch/space@1'"):
        parse_space("space: headsearch/space@2\nhead: {vit: {}}", "s.yaml")
    with pytest.raises(SpaceError, match="no format tag"):
        parse_space("head: {vit: {}}", "s.yaml")


def test_definitions_cannot_multiply_without_bound() -> None:
    lines = ["define:", "  h0: {vit: {}}"]
    lines += [f"  h{i}: {{one_of: [{{ref: h{i - 1}}}, {{ref: h{i - 1}}}]}}" for i in range(1, 30)]
    with pytest.raises(SpaceError, match=r"heads once definitions are put in; expected at most 5000"):
        parse("\n".join([*lines, "head: {ref: h29}"]))


def test_long_chains_of_definitions_are_refused() -> None:
    lines = ["define:", "  h0: {vit: {}}"] + [f"  h{i}: {{ref: h{i - 1}}}" for i in range(1, 150)]
    with pytest.raises(SpaceError, match="more than 40 deep"):
        parse("\n".join([*lines, "head: {ref: h149}"]))


def test_nested_stacks_cannot_grow_without_bound() -> None:
    with pytest.raises(SpaceError, match="up to 1024 stages; expected at most 128"):
        parse("head: {stack: {repeat: 32, each: {stack: {repeat: 32, each: {vit: {}}}}}}")


def test_a_literal_family_is_a_space_of_one() -> None:
    space = parse("head: {convnext: {depth: 2}}")
    [head] = space.enumerate()
    assert head.stages[0].params["depth"] == 2
    assert head.stages[0].params["kernel_size"] == 7
    assert parse("head: {convnext: }").count() == 1


def test_the_preset_paper_is_one_candidate_and_its_parameters_may_be_drawn() -> None:
    paper = parse_space("space: headsearch/space@1\nhead: {paper: {}}", "s.yaml")
    assert paper.count() == 1
    assert [*paper.enumerate()] == [parse_head({"convnext": {"first_shortcut": False}})]
    text = "space: headsearch/space@1\nhead: {one_of: [{paper: {depth: {int: [1, 3]}}}, {convnext: {}}]}"
    both = parse_space(text, "s.yaml")
    assert {(head.family, *shape(head)) for head in both.enumerate()} == {
        ("convnext", 1, False), ("convnext", 2, False), ("convnext", 3, False), ("convnext", 3, True)
    }  # fmt: skip
    jsonschema.validate(yaml.safe_load(text), json_schema())
    with pytest.raises(SpaceError, match="unknown parameter 'depht' of paper; did you mean 'depth'"):
        parse_space("space: headsearch/space@1\nhead: {paper: {depht: 1}}", "s.yaml")
    with pytest.raises(SpaceError, match="unknown family 'papr'; did you mean 'paper'"):
        parse_space("space: headsearch/space@1\nhead: {papr: {}}", "s.yaml")


def shape(head: HeadConfig) -> tuple[int, bool]:
    """Depth and first shortcut of a head of one stage."""
    [stage] = head.stages
    return stage.params["depth"], stage.params["first_shortcut"]


def test_a_step_that_misses_the_upper_bound_stops_before_it() -> None:
    depths = [head.depth for head in parse("head: {vit: {depth: {int: [1, 6], step: 2}}}").enumerate()]
    assert depths == [1, 3, 5]


def test_whole_numbers_become_reals_where_the_family_wants_reals() -> None:
    head = parse("head: {vit: {mlp_ratio: {choice: [2, 4]}}}").default()
    assert isinstance(head.stages[0].params["mlp_ratio"], float)


def test_null_is_a_value_where_the_family_derives_it() -> None:
    space = parse("head: {vit: {num_heads: {choice: [null, 4]}}}")
    assert [head.stages[0].params["num_heads"] for head in space.enumerate()] == [None, 4]


def test_reals_may_be_written_with_a_bare_exponent() -> None:
    space = parse("head: {vit: {drop_path: {float: [1e-3, 1e-1], log: true}}}")
    assert space.default().stages[0].params["drop_path"] == 0.001


@given(st.text(alphabet="headvitone_ofstack:{}[], \n-#&*!|>'\"0123.@/", max_size=80))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    assert refusal(TAG + text) is None or is_one_located_line(refusal(TAG + text))


@pytest.mark.parametrize(
    "body",
    [
        "head: {vit: {depth: {ref: 'de\n\n  pth'}}}\ndefine: {x: 1}",
        "head: {'vi\n\n  t': {}}",
        "head: {vit: {}}\ndefine: {'a\n\n  b': 1}",
    ],
)
def test_a_name_of_several_lines_is_named_on_one(body: str) -> None:
    told = refusal(f"{TAG}{body}\n")
    assert told is not None
    assert is_one_located_line(told)


def test_a_value_of_several_lines_is_named_on_one() -> None:
    text = "space: headsearch/space@1\nhead: {resnet: {block: {choice: [basic, 'bottle\n\n  neck'], default: basi}}}\n"
    told = refusal(text)
    assert told is not None
    assert is_one_located_line(told)
    assert '"bottle\\nneck"' in told


@given(st.data())
def test_a_damaged_space_is_read_or_refused_in_one_line(data: st.DataObject) -> None:
    text = (shipped_folder("search_spaces") / "paper.yaml").read_text(encoding="utf-8")
    start = data.draw(st.integers(0, len(text) - 1))
    length = data.draw(st.integers(0, 12))
    damaged = text[:start] + data.draw(st.text(alphabet="{}[]:,ae1 \n", max_size=4)) + text[start + length :]
    assert refusal(damaged) is None or is_one_located_line(refusal(damaged))
