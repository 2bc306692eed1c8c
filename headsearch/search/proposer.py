"""Proposes the next head: an Optuna sampler decides, the space draws, its constraints judge.

The sampler looks at a study of its own, in memory, which holds what it proposed and how that scored, and nothing else: no controls
(they have no parameters, and would empty the intersection of parameters that GP and NSGA-II work on), no replicates (they would weigh a
head twice), no draws that a constraint refused. It is rebuilt from the ledger when a search is resumed. A sampler is made anew for every
proposal, with a seed of its own, so that proposal k depends on the history, the seed and k alone: not on when the process began.
"""

from __future__ import annotations

import bisect
import copy
import itertools
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import optuna
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from headsearch.base.info import BaseInfo
from headsearch.errors import ExperimentError, SpaceError
from headsearch.heads import Candidate, HeadConfig
from headsearch.heads.config import Scalar
from headsearch.results.ranking import pareto_layers
from headsearch.search.seeds import search_seed
from headsearch.space.tree import enumerate_walks, walk

if TYPE_CHECKING:
    from collections.abc import Container

    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

    from headsearch.heads.cost import HeadCost
    from headsearch.space import Space
    from headsearch.space.domains import Domain

CostFunction = Callable[[HeadConfig, BaseInfo], "HeadCost"]

SAMPLER_DRAWS = 50
"""Draws by the sampler for one proposal. A sampler that keeps proposing what the constraints refuse is then replaced by chance."""
MAX_DRAWS = 1000
"""Draws in all for one proposal."""
FEW_DRAWS = 5
"""Random draws for an untried head, before a finite space is looked through."""
PATIENCE = 5
"""Duplicates in a row after which untried heads are looked for: one, and twice as many each time the sampler repeats itself again."""
LATEST, BLOCK, BEST = 200, 50, 25
"""Results that TPE looks at, because its time for a proposal grows with them: at least the latest 200, and of those before, told in blocks of 50, the best 25.
It takes a tenth of what it sees for good."""
POPULATION = 10
"""Heads per generation of NSGA-II, unless told otherwise. Optuna's 50 would make a search of usual size its first, random generation."""

SAMPLERS: Mapping[str, Callable[[int, int], BaseSampler]] = {
    "tpe": lambda seed, _: TPESampler(multivariate=True, group=True, seed=seed),
    "random": lambda seed, _: RandomSampler(seed=seed),
    "nsga2": lambda seed, population: NSGAIISampler(population_size=population, seed=seed),
    "gp": lambda seed, _: GPSampler(seed=seed, warn_independent_sampling=False),
    # Decides nothing: the grid is counted through.
    "grid": lambda seed, _: RandomSampler(seed=seed),
}
"""Samplers by name, made from a seed and the heads of a generation, where they have any."""


@dataclass(frozen=True)
class Draw:
    """The decisions behind a head, as Optuna knows them."""

    params: Mapping[str, Scalar] = field(default_factory=dict)
    distributions: Mapping[str, BaseDistribution] = field(default_factory=dict)
    sampler_state: Mapping[str, Any] = field(default_factory=dict)
    """What the sampler noted on the trial and needs to see again (NSGA-II: its generation)."""


@dataclass(frozen=True)
class Proposal:
    """A head to try."""

    candidate: Candidate
    draw: Draw
    position: int
    """Its place in the proposer's own study, for `tell`."""


class Proposer:
    """Proposes heads of one space for one base."""

    def __init__(
        self,
        space: Space,
        base: BaseInfo,
        *,
        sampler: str,
        seed: int,
        objectives: int,
        cost_function: CostFunction | None = None,
        population: int = POPULATION,
    ) -> None:
        """`objectives` scores are maximised. `cost_function` is needed where a constraint speaks of cost. `population` is for NSGA-II.

        Raises:
            ExperimentError: the grid of a space with a continuum.
        """
        if sampler == "grid" and not space.is_finite:
            raise ExperimentError(
                f"search.sampler: grid needs a finite space, and {space.name} has a float domain; expected tpe, random, nsga2 or gp"
            )
        self._space = space
        self._base = base
        self._sampler = sampler
        self._seed = seed
        self._cost_function = cost_function
        self._population = population
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with _quiet():
            self._storage = _BestAndLatest() if sampler == "tpe" else InMemoryStorage()
            self._study = optuna.create_study(
                storage=self._storage,
                directions=["maximize"] * objectives,
                sampler=RandomSampler(seed=0),
            )
        self._asked = 0
        self._duplicates_in_a_row = 0
        self._untried_left, self._untried_next = 0, 1
        """Untried heads to be looked for now, and the next time that the sampler repeats itself."""
        self._untried = all_decisions(space) if space.is_finite else None
        self._refusals: Counter[str] = Counter()

    @property
    def repeats_itself(self) -> bool:
        """Whether the sampler has proposed the same heads so often that untried ones are looked for in its place."""
        return self._untried_next > 1

    def remember(
        self,
        draw: Draw,
        values: Sequence[float] | None,
        *,
        running: bool = False,
        stopped: bool = False,
        duplicate: bool = False,
    ) -> int:
        """Take over an earlier proposal from the ledger, in the order they were made. Returns its position.

        `values` are None for a trial without a result; `running` ones are told later.
        """
        trial = optuna.create_trial(
            state=TrialState.RUNNING if running else _state(values, stopped=stopped),
            values=None if values is None else list(values),
            params=dict(draw.params),
            distributions=dict(draw.distributions),
            system_attrs=dict(draw.sampler_state),
        )
        self._count(duplicate=duplicate)
        study = self._storage.get_study_id_from_name(self._study.study_name)
        return self._storage.get_trial_number_from_id(self._storage.create_new_trial(study, trial))

    def tell(self, position: int, values: Sequence[float] | None, *, stopped: bool = False) -> None:
        """The scores of a proposal; None where there are none (infeasible, failed, or `stopped` before its full budget).

        A stopped one is pruned: TPE then takes it for worse than all that finished, by no stated amount. Scores of a rung would be no
        result, and a proposal that failed would be forgotten.
        """
        self._study.tell(
            position, None if values is None else list(values), state=_state(values, stopped=stopped)
        )

    def propose(self, tried: Collection[str], running: Collection[str]) -> Proposal | None:
        """The next head. It may be one of `tried`, which the sampler then wants told, but none of `running`.

        Returns None when no head but those is left.

        Raises:
            SpaceError: the constraints refuse every draw, and the space is too large to look at all of it.
        """
        self._refusals.clear()
        proposal = self._propose(tried, running)
        if proposal is not None:
            self._count(duplicate=proposal.candidate.head_id in tried)
        return proposal

    def _propose(self, tried: Collection[str], running: Collection[str]) -> Proposal | None:
        if self._asked == 0:
            proposal = self._allowed(self._given(default_decisions(self._space)))
            if proposal is not None and proposal.candidate.head_id not in running:
                return proposal
        if self._sampler == "grid" or self._untried_left:
            return self._find_untried(tried, running)
        for attempt in range(MAX_DRAWS):
            proposal = self._allowed(self._drawn(attempt))
            if proposal is None:
                continue
            if proposal.candidate.head_id not in running:
                return proposal
            self._forget(proposal)
        return self._find_untried(tried, running)

    def _find_untried(self, tried: Collection[str], running: Collection[str]) -> Proposal | None:
        """A head that nobody has tried, drawn at random. Where a few draws find none in a finite space, the next in the order of enumeration."""
        draws = range(SAMPLER_DRAWS, SAMPLER_DRAWS + (MAX_DRAWS if self._untried is None else FEW_DRAWS))
        random = () if self._sampler == "grid" else (self._drawn(attempt) for attempt in draws)
        # Never started over: what has been tried stays tried.
        in_order = (self._given(decisions) for decisions in self._untried or ())
        found = 0
        for trial in itertools.chain(random, in_order):
            proposal = self._allowed(trial)
            if proposal is not None:
                found += 1
                if proposal.candidate.head_id not in tried and proposal.candidate.head_id not in running:
                    return proposal
                self._forget(proposal)
        if found == 0 and self._untried is None:
            refused = ", ".join(f"{count} by '{reason}'" for reason, count in self._refusals.most_common(3))
            raise SpaceError(
                f"{self._space.name}: {self._refusals.total()} draws in a row were refused ({refused}); expected looser constraints"
            )
        return None

    def _drawn(self, attempt: int) -> optuna.Trial:
        """A trial that the sampler decides; by chance alone after many attempts."""
        seed = search_seed("proposal", self._seed, self._asked, attempt) % 2**32
        with _quiet():
            make = SAMPLERS[self._sampler] if attempt < SAMPLER_DRAWS else SAMPLERS["random"]
            self._study.sampler = make(seed, self._population)
        return self._study.ask()

    def _given(self, decisions: Mapping[str, Scalar]) -> optuna.Trial:
        """A trial that is decided already."""
        self._study.enqueue_trial(dict(decisions))
        return self._study.ask()

    def _allowed(self, trial: optuna.Trial) -> Proposal | None:
        """The head that a trial decides on, or None where it is refused; the sampler then never hears of it."""
        judged = self._space.judge(self._space.draw(OptunaChooser(trial)), self._base, self._cost_function)
        if isinstance(judged, str):
            self._refusals[judged] += 1
            self._study.tell(trial, state=TrialState.FAIL)
            return None
        drawn = self._storage.get_trial(trial._trial_id)
        state = {key: value for key, value in drawn.system_attrs.items() if key != "fixed_params"}
        return Proposal(judged, Draw(drawn.params, drawn.distributions, state), trial.number)

    def _forget(self, proposal: Proposal) -> None:
        self._study.tell(proposal.position, state=TrialState.FAIL)

    def _count(self, *, duplicate: bool) -> None:
        self._asked += 1
        if self._untried_left:
            self._untried_left -= 1
            return
        self._duplicates_in_a_row = self._duplicates_in_a_row + 1 if duplicate else 0
        if self._duplicates_in_a_row == PATIENCE:
            self._duplicates_in_a_row = 0
            self._untried_left, self._untried_next = self._untried_next, 2 * self._untried_next


class _BestAndLatest(InMemoryStorage):
    """A study of which a sampler sees the latest results, and of those before them the best. Which those are follows from the results alone."""

    def __init__(self) -> None:
        super().__init__()
        self._alive: set[int] = set()
        """Ids of trials that wait or run."""
        self._results: list[FrozenTrial] = []
        """By number."""
        self._best: tuple[tuple[int, int], list[FrozenTrial]] = ((0, 0), [])
        """Of how many results and up to which number, and the best of those."""

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """As Optuna's."""
        trial: int = super().create_new_trial(study_id, template_trial)
        self._take_note(trial)
        return trial

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """As Optuna's."""
        done: bool = super().set_trial_state_values(trial_id, state, values)
        self._take_note(trial_id)
        return done

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """As Optuna's, but from `LATEST` + `BLOCK` results on without those that are not to be seen, and without trials that have none."""
        early = (len(self._results) - LATEST) // BLOCK * BLOCK
        if early <= 0:
            found: list[FrozenTrial] = super().get_all_trials(study_id, deepcopy, states)
            return found
        of = early, self._results[early - 1].number
        if self._best[0] != of:
            complete = [trial for trial in self._results[:early] if trial.state == TrialState.COMPLETE]
            layers = pareto_layers([(trial.values[0], trial.values[-1]) for trial in complete])
            places = sorted(range(len(complete)), key=layers.__getitem__)[:BEST]
            self._best = of, [complete[place] for place in sorted(places)]
        seen = [*self._best[1], *self._results[early:], *map(self.get_trial, sorted(self._alive))]
        seen = [trial for trial in seen if states is None or trial.state in states]
        return copy.deepcopy(seen) if deepcopy else seen

    def _take_note(self, trial_id: int) -> None:
        trial = self.get_trial(trial_id)
        if not trial.state.is_finished():
            self._alive.add(trial_id)
            return
        self._alive.discard(trial_id)
        if trial.state != TrialState.FAIL:
            bisect.insort(self._results, trial, key=lambda other: other.number)


@dataclass(frozen=True)
class OptunaChooser:
    """Lets an Optuna trial decide while `Space.draw` draws a head, one `suggest` per decision."""

    trial: optuna.Trial

    def categorical(self, name: str, choices: Sequence[Scalar]) -> Scalar:
        """One of `choices`."""
        chosen: Scalar = self.trial.suggest_categorical(name, list(choices))
        return chosen

    def integer(self, name: str, low: int, high: int, step: int, log: bool) -> int:
        """From `low` to `high`, both included."""
        return self.trial.suggest_int(name, low, high, step=step, log=log)

    def real(self, name: str, low: float, high: float, log: bool) -> float:
        """From `low` to `high`."""
        return self.trial.suggest_float(name, low, high, log=log)


def default_decisions(space: Space) -> dict[str, Scalar]:
    """The decisions that lead to `space.default()`, by name."""
    decisions: dict[str, Scalar] = {}

    def first(name: str, domain: Domain, fallback: Scalar) -> Scalar:
        decisions[name] = domain.first(fallback)
        return decisions[name]

    walk(space.head, first)
    return decisions


def all_decisions(space: Space) -> Iterator[dict[str, Scalar]]:
    """The decisions behind every head of a finite space, in the order of `space.enumerate()`."""
    return (decisions for _, decisions in enumerate_walks(space.head))


def _state(values: Sequence[float] | None, *, stopped: bool) -> TrialState:
    if values is not None:
        return TrialState.COMPLETE
    return TrialState.PRUNED if stopped else TrialState.FAIL


class _quiet(warnings.catch_warnings):  # noqa: N801
    """Without Optuna's notices that an argument we rely on is experimental."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
