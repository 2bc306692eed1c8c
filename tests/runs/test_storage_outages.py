"""Searches whose storage goes away meanwhile: real servers, stopped, crashed, cut off, and started again."""

import contextlib
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import optuna
import pytest
from database_servers import GrpcProxy, MariaServer, PostgresServer, Stop

from headsearch.errors import RunError
from headsearch.experiment import Experiment
from headsearch.results.records import TrialRecord
from headsearch.runs.run import read_records
from headsearch.runs.storages import open_storage
from headsearch.search.ledger import Ledger
from headsearch.search.observer import Observer
from headsearch.testing.toy import ToyEvaluator
from headsearch.testing.toy_search import results, run_toy, toy_experiment
from headsearch.training.trial import RungScores, Training


def experiment(storage: str | None, *, patience: float = 60.0, **search: Any) -> Experiment:
    return toy_experiment(
        **{"strategy": "proxies", "trials": 5, "finalists": 1, "replicates": 2, "controls": ["none", "same"]}
        | {"storage": storage, "storage_patience": patience, **search}
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[object, ...]]:
    return results(run_toy(tmp_path_factory.mktemp("undisturbed") / "run", experiment(None)))


class Disturbing(Observer):
    """Does something when the fourth trial has reached its first rung, mends it a while after it was noticed, and keeps the notes."""

    def __init__(
        self, disturb: Callable[[], object], mend: Callable[[], object] | None = None, after: float = 1.0
    ) -> None:
        self._disturb = disturb
        self.mending = mend and threading.Timer(after, mend)
        self.notes: list[str] = []

    def rung_reached(self, training: Training, place: int, scores: RungScores) -> None:
        if training.number == 3 and scores.epoch == 1:
            self._disturb()

    def note(self, text: str) -> None:
        # That the password is kept out of the run directory is another matter.
        if not text.startswith("the password in search.storage"):
            self.notes.append(text)
        if text.startswith("the storage is away") and self.mending:
            self.mending.start()


def assert_whole(url: str, out: Path, expected: list[tuple[object, ...]]) -> None:
    """The study has these trials and no other, all of them ended for Optuna too."""
    assert results(read_records(out)) == expected
    studies = optuna.get_all_study_summaries(open_storage(url))
    name = max(studies, key=lambda study: study._study_id).study_name
    trials = optuna.load_study(study_name=name, storage=open_storage(url)).trials
    assert [trial.number for trial in trials] == list(range(len(expected)))
    assert all(trial.state.is_finished() for trial in trials)


@pytest.mark.parametrize("kind", ["postgresql", "mysql"])
@pytest.mark.parametrize("how", ["fast", "immediate"])
def test_a_database_that_is_restarted_ends_no_search(
    kind: str,
    how: Stop,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    undisturbed: list[tuple[object, ...]],
) -> None:
    server: PostgresServer | MariaServer = request.getfixturevalue(kind)
    watcher = Disturbing(lambda: server.stop(how), server.start)
    records = run_toy(tmp_path / "run", experiment(server.url), observer=watcher)
    assert results(records) == undisturbed
    assert watcher.notes[0].startswith("the storage is away (")
    assert watcher.notes[0].endswith("); trying again for 60 s")
    assert watcher.notes[1:] == ["the storage is back"]
    assert_whole(server.url, tmp_path / "run", undisturbed)


@pytest.mark.parametrize("kind", ["postgresql", "mysql"])
def test_a_database_that_stays_away_ends_the_search_in_one_line_and_it_resumes(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, undisturbed: list[tuple[object, ...]]
) -> None:
    server: PostgresServer | MariaServer = request.getfixturevalue(kind)
    watcher = Disturbing(server.stop)
    with pytest.raises(
        RunError,
        match=r"^the study cannot be written: .*; everything finished is safe, continue with --resume$",
    ) as raised:
        run_toy(tmp_path / "run", experiment(server.url, patience=1.0), observer=watcher)
    assert "\n" not in str(raised.value)
    assert watcher.notes[0].endswith("trying again for 1 s")
    try:
        with pytest.raises(RunError, match="cannot be reached"):
            read_records(tmp_path / "run")
    finally:
        server.start()
    so_far = results(read_records(tmp_path / "run"))
    assert so_far[:3] == undisturbed[:3]
    assert [row[1] for row in so_far[3:]] == ["running"]
    records = run_toy(tmp_path / "run", experiment(server.url), resume=True)
    assert results(records) == undisturbed
    # Taken up from its checkpoint: only the epoch that could not be reported was trained again.
    assert (tmp_path / "run" / "trials" / "3" / "epochs.txt").read_text().split() == list("1233456789")
    assert_whole(server.url, tmp_path / "run", undisturbed)


def test_workers_outlast_a_restart_of_the_database(postgresql: PostgresServer, tmp_path: Path) -> None:
    two = {"executor": {"kind": "process", "workers": 2}, "sampler": "grid"}

    def told(records: list[TrialRecord]) -> list[str]:
        # Which of two trials is first is a matter of chance, and so is its number.
        return sorted(str(row[1:9]) for row in results(records) if row[1] != "duplicate")

    slow = ToyEvaluator(seconds_per_epoch=0.01)
    watcher = Disturbing(lambda: postgresql.stop("immediate"), postgresql.start)
    records = run_toy(tmp_path / "run", experiment(postgresql.url, **two), slow, observer=watcher)
    assert told(records) == told(run_toy(tmp_path / "undisturbed", experiment(None, sampler="grid")))
    assert_whole(postgresql.url, tmp_path / "run", results(records))


@contextlib.contextmanager
def losing(
    port: int, what: Literal["request", "answer"], every: int, begun: threading.Event
) -> Iterator[int]:
    """A way to a PostgreSQL server that, once `begun` is set, breaks off at every so many-th COMMIT: before the server hears of it, or when it
    has answered."""
    commits = 0
    sockets: list[socket.socket] = []

    def shut(*ends: socket.socket) -> None:
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def pump(source: socket.socket, target: socket.socket, passes: Callable[[bytes], bool]) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if not passes(data):
                    break
                target.sendall(data)
        shut(source, target)

    def accept(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", port))
                sockets.extend((client, server))
                doomed = threading.Event()

                def asks(data: bytes, doomed: threading.Event = doomed) -> bool:
                    nonlocal commits
                    if b"COMMIT\0" not in data or not begun.is_set():
                        return True
                    commits += 1
                    if commits % every:
                        return True
                    doomed.set()
                    return what == "answer"

                def answers(data: bytes, doomed: threading.Event = doomed) -> bool:
                    return not doomed.is_set()

                threading.Thread(target=pump, args=(client, server, asks), daemon=True).start()
                threading.Thread(target=pump, args=(server, client, answers), daemon=True).start()

    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=accept, args=(listener,), daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        shut(listener, *sockets)
        for end in (listener, *sockets):
            end.close()


@pytest.mark.parametrize("what", ["request", "answer"])
def test_a_write_whose_answer_is_lost_is_not_done_twice(
    what: Literal["request", "answer"],
    postgresql: PostgresServer,
    tmp_path: Path,
    undisturbed: list[tuple[object, ...]],
) -> None:
    # The tables and the study are made in peace.
    run_toy(tmp_path / "run", experiment(postgresql.url, trials=1, finalists=0, replicates=1))
    begun = threading.Event()
    with losing(postgresql.port, what, 7, begun) as port:
        way = f"{postgresql.url.replace(str(postgresql.port), str(port))}?sslmode=disable"
        records = run_toy(tmp_path / "run", experiment(way), resume=True, observer=Disturbing(begun.set))
        assert results(records) == undisturbed
    run_toy(tmp_path / "run", experiment(postgresql.url), resume=True)
    assert_whole(postgresql.url, tmp_path / "run", undisturbed)


def test_a_proxy_that_is_restarted_ends_no_search(
    proxy: GrpcProxy, tmp_path: Path, undisturbed: list[tuple[object, ...]]
) -> None:
    watcher = Disturbing(proxy.stop, proxy.start, after=0.5)
    records = run_toy(tmp_path / "run", experiment(proxy.url), observer=watcher)
    assert results(records) == undisturbed
    assert watcher.notes[1:] == ["the storage is back"]
    assert_whole(proxy.url, tmp_path / "run", undisturbed)


def test_a_file_that_another_process_holds_is_waited_for(
    tmp_path: Path, undisturbed: list[tuple[object, ...]]
) -> None:
    url = f"sqlite:///{tmp_path}/studies.db?timeout=0.1"
    (tmp_path / "studies.db").touch()
    other = sqlite3.connect(tmp_path / "studies.db", check_same_thread=False)
    watcher = Disturbing(lambda: other.execute("BEGIN IMMEDIATE"), other.close)
    records = run_toy(tmp_path / "run", experiment(url), observer=watcher)
    assert results(records) == undisturbed
    assert watcher.notes == [
        "the storage is away (database is locked); trying again for 60 s",
        "the storage is back",
    ]


def test_of_two_writers_the_second_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/studies.db"
    experiment_ = experiment(url, trials=1, finalists=0, replicates=1)
    head = run_toy(tmp_path / "run", experiment_)[-1]
    name = optuna.get_all_study_names(open_storage(url))[0]
    first, second = (Ledger(open_storage(url), name, labels=True) for _ in range(2))
    written = first.start(head.candidate, seed=1, replicate=1)
    with pytest.raises(RunError, match=rf"^trial {written.number} of the study was written by somebody else"):
        second.start(head.candidate, seed=2, replicate=1)
    assert len(Ledger(open_storage(url), name, labels=True).records) == written.number + 1
