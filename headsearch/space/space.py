"""A search space: what may be drawn from it, how much that is, and which of it the constraints allow."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from headsearch.base.info import BaseInfo
from headsearch.document import Where
from headsearch.errors import HeadError, SpaceError
from headsearch.heads import Candidate, HeadConfig, canonical, canonical_or_none
from headsearch.heads.cost import HeadCost
from headsearch.space.constraints import Constraint
from headsearch.space.counting import count_descriptions, is_finite
from headsearch.space.domains import Chooser, RandomChooser
from headsearch.space.tree import Blocks, HeadNode, SetOf, distinct_nodes, enumerate_walks, node_data, walk

FORMAT = "headsearch/space@1"
"""Value of the key `space`, which every space file starts with."""

CostFunction = Callable[[HeadConfig, BaseInfo], HeadCost]


@dataclass(frozen=True)
class Space:
    """What may be searched. Made by `load_space` and `parse_space`; immutable and picklable.

    >>> from headsearch.space import parse_space
    >>> space = parse_space("space: headsearch/space@1\\nhead: {mixer: {depth: {choice: [1, 3]}}}", "mine.yaml")
    >>> space.count(), [head.depth for head in space.enumerate()]
    (2, [1, 3])
    """

    name: str
    """Shipped name or file name."""
    doc: str
    """What the space is for, in its author's words."""
    head: HeadNode
    """The tree that is drawn from."""
    constraints: tuple[Constraint, ...]
    """Conditions on every head, in the order written. Drawing does not look at them: `violated` does."""
    where: Where
    """Where the head is described, for messages."""

    @property
    def families(self) -> frozenset[str]:
        """Every family that a head of this space may have, before constraints."""
        return frozenset(node.family for node in distinct_nodes(self.head) if isinstance(node, Blocks))

    def expect_single_heads(self, purpose: str) -> None:
        """Raise `SpaceError` where the space has sets: `purpose`, e.g. `a screen`, says what has no use for them."""
        if any(isinstance(node, SetOf) for node in distinct_nodes(self.head)):
            raise SpaceError(
                f"{self.where}: the space has sets of heads, and {purpose} takes single heads; expected search.strategy: proxies, "
                "or a space without 'set'"
            )

    def draw(self, chooser: Chooser) -> HeadConfig:
        """The head that `chooser` decides on, every parameter of every stage filled in. Constraints are not applied."""
        return walk(self.head, lambda name, domain, fallback: domain.draw(name, chooser))

    def sample(self, rng: random.Random) -> HeadConfig:
        """A random head: the same for the same state of `rng`. Constraints are not applied."""
        return self.draw(RandomChooser(rng))

    def default(self) -> HeadConfig:
        """The head to try first: every `default`, else the family's own default where the domain has it, else the first value."""
        return walk(self.head, lambda name, domain, fallback: domain.first(fallback))

    def enumerate(self) -> Iterator[HeadConfig]:
        """Every description, one per distinct sequence of decisions. Raises `SpaceError` for a space with a continuum."""
        if not self.is_finite:
            raise SpaceError(
                f"{self.where}: the space is infinite (it has a float domain); expected a finite one to enumerate"
            )
        return (head for head, _ in enumerate_walks(self.head))

    def count(self) -> int | None:
        """Exact number of descriptions, without applying constraints; None for a continuum.

        Several descriptions may build the same network: see `count_distinct`.
        """
        return count_descriptions(self.head)

    def count_distinct(self, limit: int = 20_000) -> int | None:
        """Number of different networks, by enumeration; None for more than `limit` descriptions.

        The order of a set does not matter, and a set that names the same head twice is not counted.
        """
        count = self.count()
        if count is None or count > limit:
            return None
        return len({canonical_or_none(config) for config in self.enumerate()} - {None})

    @property
    def is_finite(self) -> bool:
        """Whether the space can be enumerated."""
        return is_finite(self.head)

    @cached_property
    def hash(self) -> str:
        """16 hexadecimal digits of the meaning: the same for any spelling, comments, order of keys or inlined definitions."""
        meaning = {
            "head": node_data(self.head),
            "constraints": sorted(c.normalised for c in self.constraints),
        }
        return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()[:16]

    def violated(
        self, config: HeadConfig, base: BaseInfo | None = None, cost: HeadCost | None = None
    ) -> Constraint | None:
        """The first constraint that `config` violates, or None.

        The head is judged by its canonical form, so that descriptions of the same network are judged alike. Raises `SpaceError`
        where a constraint needs a base or a cost that is not given, and `HeadError` where the base cannot carry the head.
        """
        head = canonical(config, base)
        return next(
            (constraint for constraint in self.constraints if not constraint.holds(head, base, cost)), None
        )

    def judge(
        self, config: HeadConfig, base: BaseInfo | None = None, cost_function: CostFunction | None = None
    ) -> Candidate | str:
        """The candidate that `config` is on `base`, or why it may not be searched; `unchecked` constraints are left out.

        Cheap constraints come first; cost is computed only for a head that passes those.
        """
        try:
            candidate = Candidate.of(config, base)
        except HeadError as error:
            return str(error)
        head = candidate.config
        unchecked = self.unchecked(base, cost_function)
        checked = [constraint for constraint in self.constraints if constraint not in unchecked]
        for constraint in checked:
            if not constraint.needs_cost and not constraint.holds(head, base):
                return constraint.text
        costly = [constraint for constraint in checked if constraint.needs_cost]
        if not costly or base is None or cost_function is None:
            return candidate
        cost = cost_function(head, base)
        return next(
            (constraint.text for constraint in costly if not constraint.holds(head, base, cost)), candidate
        )

    def unchecked(self, base: BaseInfo | None, cost_function: CostFunction | None) -> tuple[Constraint, ...]:
        """Constraints that cannot be checked with what is given."""
        no_cost = base is None or cost_function is None
        return tuple(
            c for c in self.constraints if (c.needs_base and base is None) or (c.needs_cost and no_cost)
        )

    def validate(
        self,
        base: BaseInfo | None = None,
        cost_function: CostFunction | None = None,
        *,
        limit: int = 5_000,
        samples: int = 500,
        seed: int = 0,
    ) -> tuple[Constraint, ...]:
        """Make sure that some head satisfies the constraints and fits the base; raises `SpaceError` if none does.

        A space of at most `limit` descriptions is searched whole, another by `samples` seeded draws. Returns the constraints that
        could not be checked because no base, or no way to compute cost, was given.
        """
        count = self.count()
        whole = count is not None and count <= limit
        rng = random.Random(seed)
        heads = self.enumerate() if whole else (self.sample(rng) for _ in range(samples))
        reasons: dict[str, int] = {}
        for config in heads:
            judged = self.judge(config, base, cost_function)
            if isinstance(judged, Candidate):
                return self.unchecked(base, cost_function)
            reasons[judged] = reasons.get(judged, 0) + 1
        tried = sum(reasons.values())
        worst = max(reasons, key=lambda reason: reasons[reason])
        where = next((c.where for c in self.constraints if c.text == worst), self.where)
        looked_at = (
            f"all {tried} heads" if whole else f"{tried} random heads (the space is too large to try all)"
        )
        raise where.error(
            f"no head of the space is allowed: tried {looked_at}, {reasons[worst]} refused by '{worst}'; expected at least one"
        )
