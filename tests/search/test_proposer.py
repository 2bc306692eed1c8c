import random
from collections.abc import Mapping

import pytest

from headsearch.errors import ExperimentError, SpaceError
from headsearch.heads import HeadConfig
from headsearch.heads.canonical import canonical, head_id
from headsearch.search.proposer import BEST, BLOCK, LATEST, SAMPLER_DRAWS, Proposal, Proposer, all_decisions
from headsearch.space import Space, load_space, parse_space
from headsearch.testing.toy import limits, toy_cost
from headsearch.testing.toy_search import TOY_BASE

TINY = load_space("tiny")
TINY_HEADS = {head_id(canonical(config, TOY_BASE)) for config in TINY.enumerate()}
FLOAT = parse_space(
    "space: headsearch/space@1\nhead: {mixer: {depth: {int: [1, 3]}, mlp_ratio: {float: [1, 4]}}}",
    "float.yaml",
)
FOUR = parse_space(
    """
space: headsearch/space@1
head:
  one_of:
    - mixer: {depth: {int: [1, 3]}, mlp_ratio: {float: [1, 4]}}
    - resmlp: {depth: {int: [1, 3]}, mlp_ratio: {float: [1, 4]}}
    - convnext: {depth: {int: [1, 3]}, mlp_ratio: {float: [1, 4]}}
    - gmlp: {depth: {int: [1, 3]}, mlp_ratio: {float: [1, 4]}}
""",
    "four.yaml",
)


def proposer(space: Space = TINY, sampler: str = "tpe", seed: int = 0) -> Proposer:
    return Proposer(
        space,
        TOY_BASE,
        sampler=sampler,
        seed=seed,
        objectives=2,
        cost_function=lambda config, _: toy_cost(config),
    )


def score(config: HeadConfig) -> list[float]:
    probe, discrepancy = limits(config)
    return [discrepancy, probe]


def search(
    subject: Proposer, proposals: int, tried: Mapping[str, list[float]] | None = None
) -> list[Proposal]:
    """Every proposal is scored at once; duplicates count as proposals."""
    known = dict(tried or {})
    made = []
    for _ in range(proposals):
        proposal = subject.propose(known, ())
        if proposal is None:
            break
        known.setdefault(proposal.candidate.head_id, score(proposal.candidate.config))
        subject.tell(proposal.position, known[proposal.candidate.head_id])
        made.append(proposal)
    return made


def test_a_running_proposal_is_remembered_and_told_later() -> None:
    whole = search(proposer(), 20)
    rebuilt = proposer()
    known: dict[str, list[float]] = {}
    for n, proposal in enumerate(whole[:15]):
        values = score(proposal.candidate.config)
        position = rebuilt.remember(
            proposal.draw,
            None if n == 14 else values,
            running=n == 14,
            duplicate=proposal.candidate.head_id in known,
        )
        known[proposal.candidate.head_id] = values
    rebuilt.tell(position, values)
    assert [p.candidate.head_id for p in search(rebuilt, 5, known)] == [
        p.candidate.head_id for p in whole[15:]
    ]


def test_other_seeds_propose_other_heads() -> None:
    first, second = ([p.candidate.head_id for p in search(proposer(seed=seed), 8)] for seed in (0, 1))
    assert first[0] == second[0]
    assert first[1:] != second[1:]


def test_the_grid_counts_through_the_space_in_order() -> None:
    made = [proposal.candidate.head_id for proposal in search(proposer(sampler="grid"), 1000)]
    order = list(dict.fromkeys(head_id(canonical(config, TOY_BASE)) for config in TINY.enumerate()))
    assert made[0] == head_id(canonical(TINY.default(), TOY_BASE))
    assert made[1:] == [identity for identity in order if identity != made[0]]


def test_a_sampler_that_repeats_itself_is_helped_out_more_and_more() -> None:
    subject = proposer()
    known: dict[str, list[float]] = {}
    in_a_row = longest = duplicates = 0
    while (proposal := subject.propose(known, ())) is not None:
        repeated = proposal.candidate.head_id in known
        duplicates += repeated
        in_a_row = in_a_row + 1 if repeated else 0
        longest = max(longest, in_a_row)
        known[proposal.candidate.head_id] = score(proposal.candidate.config)
        subject.tell(proposal.position, known[proposal.candidate.head_id])
    assert set(known) == TINY_HEADS
    assert longest == 5
    assert subject.repeats_itself
    # Looking for one untried head each time makes twice as many.
    assert duplicates < len(TINY_HEADS)


def test_tpe_avoids_what_was_stopped_and_forgets_what_failed() -> None:
    proposed = {}
    for stopped in (True, False):
        proposed[stopped] = 0
        for seed in range(3):
            subject = proposer(FOUR, seed=seed)
            for asked in range(40):
                proposal = subject.propose((), ())
                assert proposal is not None
                bad = proposal.candidate.config.family == "mixer"
                subject.tell(
                    proposal.position,
                    None if bad else score(proposal.candidate.config),
                    stopped=bad and stopped,
                )
                proposed[stopped] += bad and asked >= 12
    # By chance it would be a quarter of them: 21.
    assert 2 * proposed[True] < proposed[False], proposed


def test_constraints_hold_for_every_proposal() -> None:
    space = parse_space(
        "space: headsearch/space@1\n"
        "head: {one_of: [{mixer: {depth: {int: [1, 4]}}}, {vit: {depth: {int: [1, 4]}}}]}\n"
        "constraints: ['params <= 2000', 'family == \"vit\" or depth == 1']",
        "tight.yaml",
    )
    known: dict[str, list[float]] = {}
    heads = [proposal.candidate.config for proposal in search(proposer(space), 20, known)]
    # toy_cost: a thousand parameters a block.
    assert {(head.family, head.depth) for head in heads} == {("mixer", 1), ("vit", 1), ("vit", 2)}


def test_a_space_that_the_constraints_empty_says_which_constraint_refused_how_often() -> None:
    space = parse_space(
        "space: headsearch/space@1\nhead: {mixer: {mlp_ratio: {float: [1, 4]}}}\nconstraints: ['mlp_ratio < 0.5']",
        "no.yaml",
    )
    with pytest.raises(SpaceError, match=r"2001 draws in a row were refused \(2001 by 'mlp_ratio < 0.5'\)"):
        proposer(space, sampler="random").propose((), ())


def test_refused_draws_leave_no_trace_in_what_the_sampler_sees() -> None:
    space = parse_space(
        "space: headsearch/space@1\nhead: {mixer: {depth: {int: [1, 12]}, mlp_ratio: {float: [1, 4]}}}\nconstraints: ['depth <= 2']",
        "mostly.yaml",
    )
    whole = search(proposer(space), 25)
    rebuilt = proposer(space)
    for proposal in whole[:20]:
        rebuilt.remember(proposal.draw, score(proposal.candidate.config), running=False, duplicate=False)
    known = {proposal.candidate.head_id: score(proposal.candidate.config) for proposal in whole[:20]}
    assert [p.candidate.head_id for p in search(rebuilt, 5, known)] == [
        p.candidate.head_id for p in whole[20:]
    ]


def test_the_grid_of_a_continuum_is_refused_in_one_line() -> None:
    with pytest.raises(
        ExperimentError, match=r"search.sampler: grid needs a finite space, and float.yaml has a float domain"
    ):
        proposer(FLOAT, sampler="grid")


def test_decisions_come_in_the_order_of_enumeration() -> None:
    class Given:
        def __init__(self, decisions: Mapping[str, object]) -> None:
            self.decisions = decisions

        def categorical(self, name: str, choices: object) -> object:
            return self.decisions[name]

        def integer(self, name: str, low: int, high: int, step: int, log: bool) -> object:
            return self.decisions[name]

        def real(self, name: str, low: float, high: float, log: bool) -> object:
            return self.decisions[name]

    drawn = [TINY.draw(Given(decisions)) for decisions in all_decisions(TINY)]  # type: ignore[arg-type]
    assert drawn == list(TINY.enumerate())


def test_tpe_finds_better_heads_than_chance() -> None:
    space = parse_space(
        "space: headsearch/space@1\nhead: {one_of: ["
        "{convnext: {depth: {int: [1, 6]}, kernel_size: {choice: [3, 5, 7, 9]}, mlp_ratio: {choice: [1.0, 2.0, 3.0, 4.0]}}},"
        "{mixer: {depth: {int: [1, 6]}, mlp_ratio: {choice: [1.0, 2.0, 3.0, 4.0]}}},"
        "{vit: {depth: {int: [1, 6]}, mlp_ratio: {choice: [1.0, 2.0, 3.0, 4.0]}}}]}",
        "larger.yaml",
    )
    rng = random.Random(0)
    chance = sum(sum(score(space.sample(rng))) for _ in range(300)) / 300
    late = [
        sum(score(p.candidate.config))
        for seed in range(4)
        for p in search(proposer(space, seed=seed), 40)[25:]
    ]
    assert sum(late) / len(late) > chance + 1.5


def test_of_many_results_tpe_sees_the_latest_and_the_best_of_those_before() -> None:
    subject, rng, points = proposer(FOUR), random.Random(0), []
    for _ in range(600):
        trial = subject._drawn(SAMPLER_DRAWS)
        proposal = subject._allowed(trial)
        assert proposal is not None
        # Every fourth is stopped, and the very last one runs.
        point = None if rng.random() < 0.25 else (rng.random(), rng.random())
        points.append((proposal.position, point))
        if len(points) < 600:
            subject.tell(proposal.position, point, stopped=point is None)
    seen = [trial.number for trial in subject._study.get_trials(deepcopy=False)]
    latest = [position for position, _ in points[-250:]]
    # 599 results: 350 are early, the rest and the one that runs are seen.
    assert seen[BEST:] == latest
    early = {position: point for position, point in points[:-250] if point is not None}
    layers: dict[int, int] = {}
    while left := {number: point for number, point in early.items() if number not in layers}:
        front = [
            number
            for number, (x, y) in left.items()
            if not any(a >= x and b >= y and (a, b) != (x, y) for a, b in left.values())
        ]
        layers |= dict.fromkeys(front, max(layers.values(), default=0) + 1)
    worst = max(layers[number] for number in seen[:BEST])
    assert {number for number, layer in layers.items() if layer < worst} <= set(seen[:BEST])


def test_up_to_so_many_results_tpe_sees_all() -> None:
    subject = proposer(FOUR)
    for count in range(LATEST + BLOCK):
        proposal = subject._allowed(subject._drawn(SAMPLER_DRAWS))
        assert proposal is not None
        if count < LATEST + BLOCK - 1:
            subject.tell(proposal.position, score(proposal.candidate.config))
    assert len(subject._study.get_trials(deepcopy=False)) == LATEST + BLOCK
