"""What a search needs beside its experiment: the space, the base, the controls, and what trains and scores heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from headsearch.base.info import BaseInfo
from headsearch.errors import SpaceError
from headsearch.files import read_text
from headsearch.heads import Candidate
from headsearch.scoring.zero_cost_scores import ZeroCostScores
from headsearch.search.proposer import CostFunction
from headsearch.shipped import shipped_folder
from headsearch.space import Space, load_space, shipped_spaces
from headsearch.space.drawing import distinct_heads
from headsearch.training.trial import Evaluate

ScoreCandidates = Callable[[int, Path, Callable[[int, int], None]], Sequence[ZeroCostScores]]
"""Scores so many heads of the space before any training, and keeps the scores in a file; told of its progress (done, in all)."""


@dataclass(frozen=True)
class Materials:
    """What a search needs beside its experiment, all of it found good."""

    space: Space
    space_text: str
    base: BaseInfo
    controls: Mapping[str, Candidate]
    """Every control by name."""
    evaluate: Evaluate
    cost_function: CostFunction | None = None
    """Needed where the space has constraints over cost."""
    anchors: Mapping[str, Candidate] = field(default_factory=dict)
    """Heads that tie several joint runs of a screen together, by the name of their control."""
    score_candidates: ScoreCandidates | None = None
    """The first stage of a funnel; needed for one."""
    data: tuple[str, ...] = ()
    """What was understood of the images and what of them is left out, a line each."""
    left_out: str = ""
    """All that is left out, a line each."""
    seconds_per_proxy: Callable[[], float] | None = None
    """How long a proxy takes here, measured once; needed for a budget in hours."""
    train_images: int = 0
    """Of an epoch."""
    screen_bytes: float = 0.0
    """Memory that a joint training needs, estimated."""
    let_go: Callable[[], None] = lambda: None
    """Forgets the images, where workers read their own: called when nothing but trainings is left to do."""

    def distinct(self, number: int, *, seed: int) -> list[Candidate]:
        """Up to `number` different heads of the space that this base can carry."""
        return distinct_heads(self.space, number, seed=seed, base=self.base, cost_function=self.cost_function)


def read_space(source: str) -> tuple[Space, str]:
    """A space and its text, from a shipped name or a path. Raises `SpaceError`."""
    space = load_space(source)
    file = shipped_folder("search_spaces") / f"{source}.yaml" if source in shipped_spaces() else Path(source)
    return space, read_text(file, SpaceError)
