"""The board: what a search knows of its trials while it runs. Stages look at it to say what comes next; the coordinator keeps it.

It starts trainings (writes them down, makes their folder, hands out the job) and counts those that have ended.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path

from headsearch.errors import RunError
from headsearch.heads.config import HeadConfig
from headsearch.results.trials import TrialRecord
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
        self.interrupted: deque[TrialRecord] = deque()
        """Trials that a former session left running, to be taken up first."""
        self.first: dict[str, TrialRecord] = {}
        """The settled first trial of every head, by its id."""
        self.covered: set[tuple[str, int]] = set()
        """(head id, replicate) that need not be run again."""

    def trained(self, head_id: str) -> TrialRecord | None:
        """The settled first trial of a head, which answers for it."""
        return self.first.get(head_id)

    def at_work(self, head_id: str) -> bool:
        """Whether a trial of this head runs now."""
        return any(record.head_id == head_id for record in self.running.values())

    def begin(self, record: TrialRecord) -> None:
        """Note a trial that exists."""
        self.covered.add((record.head_id, record.replicate))

    def start(
        self,
        config: HeadConfig,
        head_id: str,
        *,
        replicate: int = 0,
        control: str | None = None,
        draw: Draw | None = None,
    ) -> Job:
        """Write down a training as running and hand it out."""
        seed = trial_seed(self.seed, head_id, replicate)
        record = self.ledger.start(
            config, head_id, seed=seed, replicate=replicate, control=control, draw=draw
        )
        self.begin(record)
        self.running[record.number] = record
        return self.hand_out(record)

    def duplicate(
        self, config: HeadConfig, twin: TrialRecord, *, control: str | None = None, draw: Draw | None = None
    ) -> TrialRecord:
        """Write down a head that the trial `twin` answers."""
        record = self.ledger.duplicate(config, twin, control=control, draw=draw)
        self.begin(record)
        self.observer.trial_ended(record, self.status())
        return record

    def hand_out(self, record: TrialRecord) -> Job:
        """The job of a trial that is written down. Raises `RunError` where its folder cannot be made."""
        folder = self.folder(record.number)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(
                f"{folder}: cannot be made: {error.strerror}; mend that and go on with --resume"
            ) from None
        job = Job(
            number=record.number,
            config=record.config,
            head_id=record.head_id,
            seed=record.seed,
            replicate=record.replicate,
            control=record.control,
            workdir=folder,
        )
        self.observer.trial_started(job, self.status())
        return job
