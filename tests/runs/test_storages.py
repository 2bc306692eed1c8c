"""What opening a storage says, in one line, when it cannot be had."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import unquote

import pytest
from database_servers import USER, MariaServer, PostgresServer
from optuna.storages import RDBStorage
from ports import free_port

from headsearch.errors import RunError
from headsearch.experiment import load_experiment
from headsearch.runs import database
from headsearch.runs import storages as storage
from headsearch.runs.run import read_records
from headsearch.runs.storages import open_storage
from headsearch.testing.toy_search import results, run_toy, toy_experiment

SECRET = "hunter2"


def refused(url: str, *, reading: bool = False) -> str:
    """The one line that `url` is refused with."""
    with pytest.raises(RunError) as raised:
        open_storage(url, reading=reading)
    line = str(raised.value)
    assert "\n" not in line
    assert SECRET not in line
    assert line.startswith("search.storage: ")
    return line.removeprefix("search.storage: ")


def test_an_unknown_scheme_is_named_with_what_was_expected() -> None:
    assert refused(f"nonsense://me:{SECRET}@host/db") == (
        "'nonsense://me:***@host/db' is not a storage URL; expected e.g. sqlite:///study.db or postgresql://me@host/database"
    )
    assert refused("study.db").startswith("'study.db' is not a storage URL")
    assert refused("postgresql+nonsense://host/db").startswith("'postgresql+nonsense://host/db' is not a")


def test_a_missing_driver_is_named_with_the_extra_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for url, package, extra in (
        (f"postgresql://me:{SECRET}@host/db", "psycopg", "postgresql"),
        (f"mysql://me:{SECRET}@host/db", "pymysql", "mysql"),
        ("grpc://host:13000", "grpc", "grpc"),
    ):
        with monkeypatch.context() as patch:
            # As Python has it, for a module that cannot be imported.
            for module in [name for name in sys.modules if name.split(".")[0] == package]:
                patch.delitem(sys.modules, module)
            patch.setitem(sys.modules, package, None)
            for module in [name for name in sys.modules if name.startswith("optuna.storages._grpc")]:
                patch.delitem(sys.modules, module)
            line = refused(url)
        assert "is not installed" in line
        assert line.endswith(f"pip install 'headsearch[{extra}]'")
    assert refused("oracle://host/db").endswith("the driver for oracle://host/db is not installed")


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_a_server_that_is_not_there_is_said_at_once(scheme: str) -> None:
    port = free_port()
    began = time.monotonic()
    line = refused(f"{scheme}://me:{SECRET}@127.0.0.1:{port}/db")
    assert line.startswith(f"{scheme}://me:***@127.0.0.1:{port}/db cannot be reached: ")
    assert "refused" in line
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("scheme", ["postgresql", "mysql", "grpc"])
def test_a_server_that_never_answers_is_waited_for_a_bounded_time(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "CONNECT_SECONDS", 2)
    monkeypatch.setattr(database, "SILENT_SECONDS", 2)
    monkeypatch.setattr(storage, "PROXY_SECONDS", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        url = f"grpc://{address}" if scheme == "grpc" else f"{scheme}://me:{SECRET}@{address}/db"
        began = time.monotonic()
        assert "cannot be reached: " in refused(url)
        assert time.monotonic() - began < 60


@pytest.mark.parametrize("kind", ["postgresql", "mysql"])
def test_a_wrong_password_is_said_and_not_shown(kind: str, request: pytest.FixtureRequest) -> None:
    server: PostgresServer | MariaServer = request.getfixturevalue(kind)
    line = refused(f"{kind}://{USER}:{SECRET}@127.0.0.1:{server.port}/studies")
    assert "password authentication failed" in line if kind == "postgresql" else "Access denied" in line
    assert "cannot be reached" in refused(f"{server.url}-that-is-missing")


def test_options_in_a_url_come_before_ours(postgresql: PostgresServer) -> None:
    opened = open_storage(f"{postgresql.url}?connect_timeout=3&application_name=mine")
    assert isinstance(opened, RDBStorage)
    with opened.engine.connect() as connection:
        raw = connection.connection.dbapi_connection
        assert raw is not None
        parameters = raw.info.get_parameters()
    assert (parameters["connect_timeout"], parameters["application_name"]) == ("3", "mine")
    assert parameters["tcp_user_timeout"] == "30000"


def test_a_password_may_come_from_the_environment(
    postgresql: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    password = postgresql.url.split(":")[2].split("@")[0]
    url = postgresql.url.replace(password, "${STUDIES_PASSWORD}")
    assert refused(url) == (
        f"'postgresql://{USER}:***@127.0.0.1:{postgresql.port}/studies' needs the environment variable STUDIES_PASSWORD, which is not set"
    )
    # As it is: it is written in percent for the URL.
    monkeypatch.setenv("STUDIES_PASSWORD", unquote(password))
    experiment = toy_experiment(strategy="proxies", trials=1, finalists=0, replicates=1, storage=url)
    records = run_toy(tmp_path / "run", experiment)
    assert results(read_records(tmp_path / "run")) == results(records)
    kept = [path.read_text() for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert not any(form in text for text in kept for form in (password, unquote(password)))


def test_a_journal_wants_a_file_that_can_be_written(tmp_path: Path) -> None:
    assert refused("journal://study.log").startswith(
        "'journal://study.log' names no file; expected journal:///"
    )
    assert refused("journal:///").startswith("'journal:///' names no file")
    assert (
        refused(f"journal:///{tmp_path}/no/such/study.log")
        == f"{tmp_path}/no/such/study.log: No such file or directory"
    )
    assert refused(f"journal:///{tmp_path}").startswith(f"{tmp_path}: ")
    (tmp_path / "text.log").write_text("not a journal\n")
    assert refused(f"journal:///{tmp_path}/text.log") == f"{tmp_path}/text.log is not a journal of Optuna's"
    (tmp_path / "notes.txt").write_text("not a journal, and no line")
    assert refused(f"journal:///{tmp_path}/notes.txt").endswith("is not a journal of Optuna's")
    assert (tmp_path / "notes.txt").read_text() == "not a journal, and no line"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "text.log"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_journal_in_a_folder_of_others_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "Permission denied" in refused(f"journal:///{tmp_path}/study.log")


def test_a_relative_journal_and_its_lock_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs").mkdir()
    experiment = toy_experiment(
        strategy="proxies", trials=1, finalists=0, replicates=1, storage="journal:///logs/study.log"
    )
    records = run_toy(Path("run"), experiment)
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["study.log"]
    assert results(read_records(Path("run"))) == results(records)


def test_half_a_line_that_a_full_disk_left_in_a_journal_is_cut_off(tmp_path: Path) -> None:
    journal = tmp_path / "study.log"
    short = toy_experiment(
        strategy="proxies", trials=2, finalists=0, replicates=1, storage=f"journal:///{journal}"
    )
    longer = toy_experiment(
        strategy="proxies", trials=4, finalists=0, replicates=1, storage=f"journal:///{journal}"
    )
    run_toy(tmp_path / "run", short)
    whole = journal.read_bytes()
    journal.write_bytes(whole + whole.splitlines()[-1][:40])
    run_toy(tmp_path / "run", longer, resume=True)
    records = read_records(tmp_path / "run")
    assert results(records) == results(run_toy(tmp_path / "undisturbed", longer))


def test_an_address_of_a_proxy_has_a_host_and_perhaps_a_port() -> None:
    assert refused("grpc://").startswith("'grpc://' is not an address; expected grpc://host:13000")
    assert refused("grpc://host:port").startswith("'grpc://host:port' is not an address")


def test_reading_makes_nothing(tmp_path: Path) -> None:
    assert refused(f"sqlite:///{tmp_path}/study.db", reading=True) == f"there is no file {tmp_path}/study.db"
    assert (
        refused(f"journal:///{tmp_path}/study.log", reading=True) == f"there is no file {tmp_path}/study.log"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_storage_that_cannot_be_had_ends_a_search_before_anything_is_made(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom headsearch.cli import main\n"
        f"sys.argv = ['headsearch', 'run', 'digits', '--out', {str(tmp_path / 'run')!r}, '--set', "
        f"'search.storage=postgresql://me:{SECRET}@127.0.0.1:{free_port()}/db']\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "search.storage: postgresql://me:***@127.0.0.1" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert SECRET not in done.stderr + done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_password_in_an_experiment_is_kept_out_of_its_run(
    postgresql: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    password = postgresql.url.split(":")[2].split("@")[0]
    monkeypatch.setenv("HEADSEARCH_STORAGE_PASSWORD", "of another run")
    experiment = toy_experiment(
        strategy="proxies", trials=1, finalists=0, replicates=1, storage=postgresql.url
    )
    records = run_toy(tmp_path / "run", experiment)
    kept = [path.read_text(errors="replace") for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert kept
    assert not any(form in text for text in kept for form in (password, unquote(password)))
    written = load_experiment(tmp_path / "run" / "experiment.yaml").search.storage
    assert written == postgresql.url.replace(password, "${HEADSEARCH_STORAGE_PASSWORD}")
    assert os.environ["HEADSEARCH_STORAGE_PASSWORD"] == unquote(password)
    assert results(read_records(tmp_path / "run")) == results(records)
    monkeypatch.delenv("HEADSEARCH_STORAGE_PASSWORD")
    with pytest.raises(RunError, match="needs the environment variable HEADSEARCH_STORAGE_PASSWORD"):
        read_records(tmp_path / "run")
