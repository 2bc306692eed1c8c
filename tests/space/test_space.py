"""The space as a whole: names of decisions, defaults, hash, constraints."""

from __future__ import annotations

import pickle
import random
from typing import Any

import optuna
import pytest

from headsearch.base.info import BaseInfo
from headsearch.errors import SpaceError
from headsearch.heads import HeadConfig, Scalar, parse_head
from headsearch.heads.cost import HeadCost
from headsearch.space import Space, parse_space

TAG = "space: headsearch/space@1\n"
BASE = BaseInfo("vit_small_patch16_224", "vit", 384, (14, 14), 384, 12, 21_665_664, 8_500_000_000, 224)


def parse(text: str) -> Space:
    return parse_space(TAG + text, "s.yaml")


class Recorder:
    """Takes the last of everything and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}

    def categorical(self, name: str, choices: Any) -> Scalar:
        self.asked[name] = tuple(choices)
        return choices[-1]  # type: ignore[no-any-return]

    def integer(self, name: str, low: int, high: int, step: int, log: bool) -> int:
        self.asked[name] = (low, high, step, log)
        return high

    def real(self, name: str, low: float, high: float, log: bool) -> float:
        self.asked[name] = (low, high, log)
        return high


def asked(text: str) -> dict[str, Any]:
    recorder = Recorder()
    parse(text).draw(recorder)
    return recorder.asked


def test_decisions_have_readable_names() -> None:
    text = "head: {one_of: [{vit: {}}, {convnext: {kernel_size: {choice: [3, 5]}, drop_path: {float: [0, 0.1]}, depth: 2}}]}"
    assert asked(text) == {
        "family": ("vit", "convnext"),
        "convnext.drop_path": (0.0, 0.1, False),
        "convnext.kernel_size": (3, 5),
    }


def test_slots_have_names_of_their_own() -> None:
    text = "head: {stack: {repeat: {int: [1, 2]}, each: {one_of: [{vit: {}}, {swin: {window: {int: [2, 8], log: true}}}]}}}"
    assert asked(text) == {
        "repeat": (1, 2, 1, False),
        "slot1.family": ("vit", "swin"),
        "slot1.swin.window": (2, 8, 1, True),
        "slot2.family": ("vit", "swin"),
        "slot2.swin.window": (2, 8, 1, True),
    }


def test_a_shared_draw_bears_the_name_of_its_definition() -> None:
    text = "define: {d: {int: [1, 4]}}\nhead: {stack: {repeat: 2, each: {mixer: {depth: {same: d}}}}}"
    assert asked(text) == {"d": (1, 4, 1, False)}


def test_branches_of_one_family_are_told_apart() -> None:
    text = "head: {one_of: [{vit: {depth: {int: [1, 2]}}}, {vit: {depth: {int: [3, 9]}}}]}"
    assert asked(text) == {"family": ("vit", "vit#2"), "vit#2.depth": (3, 9, 1, False)}


def test_a_branch_that_is_a_definition_bears_its_name() -> None:
    text = "define: {deep: {vit: {depth: {int: [6, 9]}}}}\nhead: {one_of: [{vit: {}}, {ref: deep}]}"
    assert asked(text) == {"family": ("vit", "deep"), "deep.depth": (6, 9, 1, False)}


def test_ref_and_same_of_one_head_never_share_a_name() -> None:
    text = (
        "define: {x: {vit: {depth: {int: [1, 9]}}}}\n"
        "head: {stack: {repeat: 2, each: {one_of: [{same: x}, {ref: x}]}}}"
    )
    assert asked(text)["slot1.family"] == ("x", "x#2")
    top = "define: {x: {vit: {depth: {int: [1, 9]}}}}\nhead: {one_of: [{same: x}, {ref: x}]}"
    assert asked(top) == {"family": ("x", "x#2"), "x#2.depth": (1, 9, 1, False)}


def test_literals_ask_nobody() -> None:
    assert asked("head: {vit: {depth: 2}}") == {}


def test_optuna_is_a_chooser_in_three_lines() -> None:
    class Suggest:
        def __init__(self, trial: optuna.Trial) -> None:
            self.trial = trial

        def categorical(self, name: str, choices: Any) -> Any:
            return self.trial.suggest_categorical(name, choices)

        def integer(self, name: str, low: int, high: int, step: int, log: bool) -> int:
            return self.trial.suggest_int(name, low, high, step=step, log=log)

        def real(self, name: str, low: float, high: float, log: bool) -> float:
            return self.trial.suggest_float(name, low, high, log=log)

    space = parse(
        "define: {b: {one_of: [{vit: {depth: {int: [1, 5], step: 2}}}, {swin: {window: {int: [2, 8], log: true}}}]}}\n"
        "head: {one_of: [{ref: b}, {stack: {repeat: {int: [2, 3]}, each: {ref: b}}}]}"
    )
    inside = set(space.enumerate())
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=5))
    for _ in range(25):
        trial = study.ask()
        head = space.draw(Suggest(trial))
        assert head in inside
        study.tell(trial, head.depth)


def test_the_default_head_takes_every_default() -> None:
    space = parse(
        "head: {one_of: [{vit: {}}, {convnext: {kernel_size: {choice: [3, 7]}, depth: {int: [5, 9]}, "
        "mlp_ratio: {choice: [1, 2], default: 2}}}], default: convnext}"
    )
    params = space.default().stages[0].params
    assert space.default().family == "convnext"
    assert params["kernel_size"] == 7, "the family's default, because the domain has it"
    assert params["depth"] == 5, "the lowest, because the family's default is outside"
    assert params["mlp_ratio"] == 2.0, "the space's own default"


def test_sampling_repeats_under_a_seed() -> None:
    space = parse("head: {stack: {repeat: {int: [1, 4]}, each: {vit: {drop_path: {float: [0, 0.5]}}}}}")
    first, second = ([space.sample(rng) for _ in range(10)] for rng in (random.Random(3), random.Random(3)))
    assert first == second
    assert len(set(first)) > 5


def test_the_hash_is_of_the_meaning() -> None:
    plain = parse(
        "head: {convnext: {kernel_size: {choice: [3, 7]}, depth: {int: [1, 4], step: 2}}}\nconstraints: [depth <= 3, depth>0]"
    )
    spelled = parse(
        "# a comment\ndoc: words\ndefine: {k: {choice: [3, 7.0]}, unused: 3}\n"
        "constraints:\n  - (depth > 0)\n  - depth  <=  3\n"
        "head:\n  convnext:\n    depth: {int: [1, 3], step: 2}\n    kernel_size: {ref: k}\n    mlp_ratio: 4\n"
    )
    assert plain.hash == spelled.hash


@pytest.mark.parametrize(
    "text",
    [
        "head: {mixer: {depth: {choice: [1, 3]}}}",
        "head: {mixer: {depth: {choice: [1, 2], default: 2}}}",
        "head: {mixer: {depth: {int: [1, 2]}}}",
        "head: {resmlp: {depth: {choice: [1, 2]}}}",
        "head: {mixer: {depth: {choice: [1, 2]}, drop_path: 0.1}}",
        "head: {one_of: [{mixer: {depth: {choice: [1, 2]}}}]}",
        "head: {mixer: {depth: {choice: [1, 2]}}}\nconstraints: [depth <= 1]",
    ],
)
def test_another_meaning_is_another_hash(text: str) -> None:
    assert parse(text).hash != parse("head: {mixer: {depth: {choice: [1, 2]}}}").hash


def test_a_space_survives_pickling() -> None:
    space = parse("head: {mixer: {depth: {int: [1, 3]}}}\nconstraints: [depth <= 2]")
    copy = pickle.loads(pickle.dumps(space))
    assert copy.hash == space.hash
    assert copy.violated(parse_head({"mixer": {"depth": 3}})).text == "depth <= 2"


def test_the_first_violated_constraint_is_named() -> None:
    space = parse("head: {mixer: {depth: {int: [1, 9]}}}\nconstraints: [depth <= 4, depth <= 2]")
    violated = space.violated(parse_head({"mixer": {"depth": 3}}))
    assert violated is not None
    assert violated.text == "depth <= 2"
    assert str(violated.where) == "s.yaml:3:27"
    assert space.violated(parse_head({"mixer": {"depth": 2}})) is None


def test_descriptions_of_one_network_are_judged_alike() -> None:
    space = parse("head: {resnet: {}}\nconstraints: [bottle_ratio <= 0.25]")
    basic = {
        "block": "basic",
        "bottle_ratio": 2.0,
    }  # a basic block has no bottleneck: the ratio has no effect
    assert space.violated(parse_head({"resnet": basic})) is None


def test_heads_left_to_the_base_are_judged_by_what_the_base_makes_of_them() -> None:
    space = parse("head: {vit: {}}\nconstraints: [num_heads <= 8]")
    assert space.violated(parse_head({"vit": {}})) is None
    violated = space.violated(parse_head({"vit": {}}), BASE)
    assert violated is not None, "width 384 makes 12 heads"


def test_a_space_that_its_constraints_empty_is_an_error() -> None:
    space = parse("head: {mixer: {depth: {int: [2, 4]}}}\nconstraints: [depth >= 2, depth < 2]")
    with pytest.raises(
        SpaceError, match=r"^s.yaml:3:27: no head .* tried all 3 heads, 3 refused by 'depth < 2'"
    ):
        space.validate()


def test_a_large_space_is_checked_by_samples_and_says_so() -> None:
    space = parse("head: {mixer: {drop_path: {float: [0.0, 0.5]}}}\nconstraints: [drop_path > 0.6]")
    with pytest.raises(SpaceError, match=r"tried 500 random heads \(the space is too large to try all\)"):
        space.validate()


def test_validation_tells_what_it_could_not_check() -> None:
    space = parse(
        "head: {mixer: {depth: {int: [1, 4]}}}\nconstraints: [depth <= 2, params <= base.params, depth < base.depth]"
    )
    assert [c.text for c in space.validate()] == ["params <= base.params", "depth < base.depth"]
    assert [c.text for c in space.validate(BASE)] == ["params <= base.params"]
    assert space.validate(BASE, lambda config, base: HeadCost(1000 * config.depth, 1)) == ()


def test_validation_computes_cost_only_for_heads_that_pass_the_rest() -> None:
    space = parse("head: {mixer: {depth: {int: [1, 4]}}}\nconstraints: [params <= 1500, depth >= 3]")
    priced: list[int] = []

    def cost(config: HeadConfig, base: BaseInfo) -> HeadCost:
        priced.append(config.depth)
        return HeadCost(1000 * config.depth, 1)

    with pytest.raises(SpaceError, match=r"no head .* all 4 heads"):
        space.validate(BASE, cost)
    assert priced == [3, 4]


def test_heads_that_the_base_cannot_carry_are_not_allowed() -> None:
    space = parse("head: {vit: {num_heads: 5}}")
    with pytest.raises(SpaceError, match="num_heads is 5: expected a divisor of the width 384"):
        space.validate(BASE)
    assert space.validate() == ()
