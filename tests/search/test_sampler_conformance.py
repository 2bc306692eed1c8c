"""What every sampler must do. A new one is done when it is a line in `headsearch.search.proposer.SAMPLERS` and all of this passes.

Spaces are small and finite, so that a grid is one too; the number of proposals is such that models have something to learn from.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from headsearch.heads import Candidate, HeadConfig
from headsearch.search.proposer import SAMPLERS, Draw, Proposal, Proposer
from headsearch.space import Space, parse_space
from headsearch.testing.toy import limits, toy_cost
from headsearch.testing.toy_search import TOY_BASE

CONDITIONAL = """
space: headsearch/space@1
head:
  one_of:
    - convnext: {depth: {int: [1, 3]}, kernel_size: {choice: [3, 5, 7]}, first_shortcut: {choice: [false, true]}}
    - vit: {depth: {choice: [1, 3]}}
    - stack:
        repeat: {int: [1, 2]}
        each: {one_of: [{mixer: {depth: {int: [1, 2]}}}, {poolformer: {}}]}
"""
"""Three branches with parameters of their own, one of which has a varying number of parts."""

CONSTRAINED = CONDITIONAL + 'constraints: ["params <= 2000", "family != \\"vit\\" or depth == 1"]\n'
"""The same with fewer heads."""

SMALL = """
space: headsearch/space@1
head: {one_of: [{mixer: {depth: {int: [1, 3]}}}, {vit: {depth: {choice: [1, 3]}}}, {convnext: {first_shortcut: {choice: [false, true]}}}]}
"""
"""Seven heads."""

STARTUP = 10
"""Observations before TPE, GP and NSGA-II do something else than chance."""


@pytest.fixture(params=SAMPLERS)
def sampler(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_proposals_are_allowed(sampler: str) -> None:
    """Every proposal is a canonical head of the space that its constraints let pass, and the default comes first where they do."""
    for text in (CONDITIONAL, CONSTRAINED):
        space = parse_space(text, "check.yaml")
        allowed = _heads(space)
        made = [trial.proposal for trial in _search(_proposer(space, sampler), STARTUP + 3)]
        assert made, "nothing was proposed"
        for proposal in made:
            assert proposal.candidate.head_id in allowed, f"{proposal.candidate.head_id} is not in the space"
            assert Candidate.of(proposal.candidate.config, TOY_BASE) == proposal.candidate
        default = Candidate.of(space.default(), TOY_BASE).head_id
        assert (made[0].candidate.head_id == default) == (default in allowed)


def test_proposals_follow_from_seed_and_history(sampler: str) -> None:
    """Two searches with one seed propose the same heads, with one objective and with two."""
    space = parse_space(CONDITIONAL, "check.yaml")
    for objectives in (1, 2):
        first, second = (
            _search(_proposer(space, sampler, objectives), STARTUP + 3, objectives) for _ in range(2)
        )
        assert _draws(first) == _draws(second), f"{objectives} objectives"


def test_a_rebuilt_sampler_goes_on(sampler: str) -> None:
    """A sampler that is rebuilt from the trials so far, one of them still running, proposes what the old one would have."""
    space = parse_space(CONDITIONAL, "check.yaml")
    whole = _search(_proposer(space, sampler), STARTUP + 4)
    for cut in (1, STARTUP, STARTUP + 2):
        rebuilt = _proposer(space, sampler)
        for trial in whole[: cut - 1]:
            rebuilt.remember(
                trial.proposal.draw, trial.values, stopped=trial.stopped, duplicate=trial.duplicate
            )
        last = whole[cut - 1]
        position = rebuilt.remember(last.proposal.draw, None, running=True, duplicate=last.duplicate)
        rebuilt.tell(position, last.values, stopped=last.stopped)
        following = _search(rebuilt, len(whole) - cut, history=whole[:cut])
        assert _draws(following) == _draws(whole[cut:]), f"after {cut} proposals"


def test_a_finite_space_is_exhausted(sampler: str) -> None:
    """Every head is found, none is proposed that is being trained, and then the search is told that none is left."""
    space = parse_space(SMALL, "check.yaml")
    heads = _heads(space)
    for objectives in (1, 2):
        subject = _proposer(space, sampler, objectives)
        known: dict[str, list[float]] = {}
        asked = 0
        while (proposal := subject.propose(known, ())) is not None:
            asked += 1
            assert asked <= 10 * len(heads), "the same heads again and again"
            known.setdefault(proposal.candidate.head_id, _score(proposal.candidate.config)[:objectives])
            subject.tell(proposal.position, known[proposal.candidate.head_id])
        assert set(known) == heads
    subject, running = _proposer(space, sampler), set[str]()
    while (proposal := subject.propose((), running)) is not None:
        assert proposal.candidate.head_id not in running, "a head that is being trained was proposed again"
        running.add(proposal.candidate.head_id)
    assert running == heads


@dataclass(frozen=True)
class _Trial:
    """A proposal, and what was told of it."""

    proposal: Proposal
    values: list[float] | None
    stopped: bool
    duplicate: bool


def _proposer(space: Space, sampler: str, objectives: int = 2) -> Proposer:
    return Proposer(
        space,
        TOY_BASE,
        sampler=sampler,
        seed=3,
        objectives=objectives,
        cost_function=lambda config, _: toy_cost(config),
    )


def _heads(space: Space) -> set[str]:
    """Ids of all heads that the constraints let pass, by trying all."""
    return {
        judged.head_id
        for config in space.enumerate()
        if isinstance(judged := space.judge(config, TOY_BASE, lambda config, _: toy_cost(config)), Candidate)
    }


def _search(
    subject: Proposer, proposals: int, objectives: int = 2, history: Sequence[_Trial] = ()
) -> list[_Trial]:
    """Ask so often after `history`, and tell at once. Most trials complete; every fourth is stopped, and every seventh is of no use."""
    known = {trial.proposal.candidate.head_id: trial for trial in history}
    made: list[_Trial] = []
    for number in range(len(history), len(history) + proposals):
        proposal = subject.propose(known, ())
        if proposal is None:
            break
        twin = known.get(proposal.candidate.head_id)
        stopped = number % 4 == 3
        useless = stopped or number % 7 == 6
        values = None if useless else _score(proposal.candidate.config)[:objectives]
        trial = _Trial(proposal, values, stopped, duplicate=False)
        if twin is not None:
            trial = _Trial(proposal, twin.values, twin.stopped, duplicate=True)
        known.setdefault(proposal.candidate.head_id, trial)
        subject.tell(proposal.position, trial.values, stopped=trial.stopped)
        made.append(trial)
    return made


def _draws(trials: Sequence[_Trial]) -> list[tuple[str, Draw]]:
    return [(trial.proposal.candidate.head_id, trial.proposal.draw) for trial in trials]


def _score(config: HeadConfig) -> list[float]:
    probe, discrepancy = limits(config)
    return [discrepancy, probe]
