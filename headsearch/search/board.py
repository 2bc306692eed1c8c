"""The board: what a search knows of its trainings while it runs. Stages look at it to say what comes next; the coordinator keeps it.

It starts trainings (writes their trials down, makes their folder, hands them out) and remembers those that have ended.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from headsearch.errors import RunError
from headsearch.files import write_bytes_atomically
from headsearch.heads import Candidate, HeadConfig
from headsearch.results.records import State, Taken, TrialRecord
from headsearch.search.ledger import Ledger
from headsearch.search.observer import Observer, SearchStatus
from headsearch.search.proposer import Draw
from headsearch.search.seeds import search_seed, trial_seed
from headsearch.training.trial import BEGINNING, BRANCHES, TRUNK, Training, Trial, TrialStage


class Board:
    """Trainings that run, that have ended, and that need not be run again."""

    def __init__(
        self,
        ledger: Ledger,
        folder: Callable[[int], Path],
        observer: Observer,
        status: Callable[[], SearchStatus],
        *,
        seed: int,
        trunk: bool = False,
    ) -> None:
        """`folder` gives a training's folder by its number, `status` how far the search is; `seed` is the study's. With `trunk` all other
        trainings branch from one, each replicate from its own."""
        self.ledger = ledger
        self.folder = folder
        self.observer = observer
        self.status = status
        self.seed = seed
        self.trunk = trunk
        self.trunks: dict[int, TrialRecord] = {}
        """By replicate, as they were when they were last heard of; one that failed is trained again."""
        self.running: dict[int, Training] = {}
        """At work, by number."""
        self.interrupted: deque[Training] = deque()
        """Proxies that a former session left running, to be taken up first."""
        self.first: dict[str, TrialRecord] = {}
        """The settled first proxy of every head, by its id: it answers for the head."""
        self.covered: set[tuple[str, int]] = set()
        """(head id, replicate) of proxies that need not be run again."""

    @property
    def heads_at_work(self) -> set[str]:
        """Ids of the heads whose first proxy runs now."""
        proxies = (t for t in self.running.values() if t.stage == "proxy" and t.replicate == 0)
        return {candidate.head_id for training in proxies for candidate in training.candidates}

    def can_branch(self, replicate: int) -> bool:
        """Whether a training with this replicate has what it begins with."""
        return not self.trunk or self._trunk_state(replicate) == "complete"

    def start_trunk(self, replicate: int) -> Training | None:
        """Write down the trunk of a replicate as running and hand it out; None where it is at work. Asked for where a training cannot branch."""
        if self._trunk_state(replicate) == "running":
            return None
        record = self.ledger.start(
            Candidate.of(HeadConfig()),
            seed=search_seed("trunk", self.seed, replicate),
            replicate=replicate,
            control="none",
            stage="trunk",
        )
        self.remember_trunk(record)
        return self.hand_out(self.take_up([record]))

    def remember_trunk(self, record: TrialRecord) -> None:
        """Take note of a trunk. Raises `RunError` where nothing can branch from it, ever."""
        if record.state == "infeasible":
            raise RunError(
                f"the base itself cannot be trained: the trunk (trial {record.number}) is worthless: {record.reason}; "
                f"expected other rates in `proxy`, in another run (--out)"
            )
        self.trunks[record.replicate] = record

    def _trunk_state(self, replicate: int) -> State | None:
        known = self.trunks.get(replicate)
        return None if known is None else known.state

    def start(
        self,
        candidate: Candidate,
        *,
        replicate: int = 0,
        control: str | None = None,
        draw: Draw | None = None,
        taken: Taken | None = None,
        stage: TrialStage = "proxy",
        epochs: int | None = None,
    ) -> Training:
        """Write down a training of one head as running and hand it out; `epochs` where they are its own affair."""
        record = self.ledger.start(
            candidate,
            seed=trial_seed(self.seed, candidate.head_id, replicate, stage),
            replicate=replicate,
            control=control,
            draw=draw,
            stage=stage,
            taken=taken,
            epochs=epochs,
        )
        return self.hand_out(self.take_up([record]))

    def take_up(self, records: Sequence[TrialRecord]) -> Training:
        """The training whose trials are written down in `records`, by place; it counts as running from now on."""
        first = records[0]
        training = Training(
            trials=tuple(Trial(record.number, record.candidate, record.control) for record in records),
            seed=first.seed,
            workdir=self.folder(first.number),
            replicate=first.replicate,
            stage=first.stage,
            epochs=first.epochs,
        )
        self.running[training.number] = training
        if training.stage == "proxy":
            self.covered.add((first.head_id, first.replicate))
        return training

    def hand_out(self, training: Training) -> Training:
        """Make the folder of a training and tell that it begins. Raises `RunError` where the folder cannot be made."""
        try:
            training.workdir.mkdir(parents=True, exist_ok=True)
            if self.trunk and training.stage in BRANCHES:
                trunk = self.folder(self.trunks[training.replicate].number) / TRUNK
                write_bytes_atomically(training.workdir / BEGINNING, trunk.read_bytes())
        except OSError as error:
            raise RunError(
                f"{error.filename or training.workdir}: {error.strerror}; fix that and continue with --resume"
            ) from None
        self.observer.training_started(training, self.status())
        return training

    def duplicate(
        self,
        candidate: Candidate,
        twin: TrialRecord,
        *,
        control: str | None = None,
        draw: Draw | None = None,
        taken: Taken | None = None,
    ) -> TrialRecord:
        """Write down a head that the trial `twin` answers."""
        record = self.ledger.duplicate(candidate, twin, control=control, draw=draw, taken=taken)
        self.observer.training_ended([record], self.status())
        return record
