"""The board: what a search knows of its trials while it runs. Stages look at it to say what comes next; the coordinator keeps it.

It starts trainings (writes them down, makes their folder, hands out the job) and counts those that have ended.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from headsearch.errors import RunError
from headsearch.heads import Candidate
from headsearch.heads.config import HeadConfig
from headsearch.results.records import Taken, TrialRecord
from headsearch.search.draws import Draw
from headsearch.search.executors import Job
from headsearch.search.ledger import Ledger
from headsearch.search.observer import Observer, SearchStatus
from headsearch.search.seeds import trial_seed


class Board:
    """Trials that run, that have ended, and that need not be run again."""

    def __init__(
        self,
        ledger: Ledger,
        folder: Callable[[int], Path],
        observer: Observer,
        status: Callable[[], SearchStatus],
        *,
        seed: int,
    ) -> None:
        """`folder` gives a trial's folder by its number, `status` how far the search is; `seed` is the study's."""
        self.ledger = ledger
        self.folder = folder
        self.observer = observer
        self.status = status
        self.seed = seed
        self.running: dict[int, TrialRecord] = {}
        """Proxies at work, by number."""
        self._joint: dict[int, list[int]] = {}
        """Numbers of the trials of every joint run at work, by its seed."""
        self.interrupted: deque[TrialRecord] = deque()
        """Trials that a former session left running, to be taken up first."""
        self.first: dict[str, TrialRecord] = {}
        """The settled first proxy of every head, by its id."""
        self.covered: set[tuple[str, int]] = set()
        """(head id, replicate) of proxies that need not be run again."""

    def trained(self, identity: str) -> TrialRecord | None:
        """The settled first proxy of a head, which answers for it."""
        return self.first.get(identity)

    def at_work(self, identity: str) -> bool:
        """Whether a proxy of this head runs now."""
        return any(record.head_id == identity for record in self.running.values())

    def joint(self, seed: int) -> list[int]:
        """Numbers of the trials of the joint run with this seed, in the order of its heads; empty where it is not at work."""
        return self._joint.get(seed, [])

    def start_joint(
        self,
        members: Sequence[Candidate],
        controls: Sequence[str | None],
        known: Mapping[str, TrialRecord],
        seed: int,
        replicate: int,
    ) -> Job:
        """Hand out a joint run: each of its heads is a trial, written down unless it is `known` from a former session."""
        records = []
        for candidate, control in zip(members, controls, strict=True):
            record = known.get(candidate.head_id) or self.ledger.start(
                candidate, seed=seed, replicate=replicate, control=control, stage="screen"
            )
            records.append(record)
        self._joint[seed] = [record.number for record in records]
        first = records[0]
        return self._handed_out(
            Job(
                number=first.number,
                config=HeadConfig(members=tuple(candidate.config for candidate in members)),
                head_id=f"screen of {len(members)} heads",
                seed=seed,
                replicate=replicate,
                control=None,
                workdir=self.folder(first.number),
                stage="screen",
            )
        )

    def end_joint(self, seed: int) -> None:
        """Note that a joint run is at work no more."""
        del self._joint[seed]

    @property
    def at_rest(self) -> bool:
        """Whether nothing is at work."""
        return not self.running and not self._joint

    @property
    def trainings(self) -> int:
        """Trainings at work; a joint run is one."""
        return len(self.running) + len(self._joint)

    def begin(self, record: TrialRecord) -> None:
        """Note a trial that exists."""
        self.covered.add((record.head_id, record.replicate))

    def start(
        self,
        candidate: Candidate,
        *,
        replicate: int = 0,
        control: str | None = None,
        draw: Draw | None = None,
        taken: Taken | None = None,
    ) -> Job:
        """Write down a training as running and hand it out."""
        seed = trial_seed(self.seed, candidate.head_id, replicate)
        record = self.ledger.start(
            candidate, seed=seed, replicate=replicate, control=control, draw=draw, taken=taken
        )
        self.begin(record)
        self.running[record.number] = record
        return self.hand_out(record)

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
        self.begin(record)
        self.observer.trial_ended(record, self.status())
        return record

    def hand_out(self, record: TrialRecord) -> Job:
        """The job of a trial that is written down. Raises `RunError` where its folder cannot be made."""
        return self._handed_out(
            Job(
                number=record.number,
                config=record.config,
                head_id=record.head_id,
                seed=record.seed,
                replicate=record.replicate,
                control=record.control,
                workdir=self.folder(record.number),
            )
        )

    def _handed_out(self, job: Job) -> Job:
        try:
            job.workdir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(
                f"{job.workdir}: cannot be made: {error.strerror}; mend that and go on with --resume"
            ) from None
        self.observer.trial_started(job, self.status())
        return job
