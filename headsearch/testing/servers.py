"""Database servers for tests: real ones, started in a temporary folder, listening to this machine only.

A server will not run as root; started by root, it runs as the user that its Debian package made. None outlives the process that started it,
however that ends.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

USER, PASSWORD, DATABASE = "headsearch", "s3cret/pass", "studies"
START_SECONDS = 120.0
"""For a server to come up on a busy machine."""


Stop = Literal["fast", "immediate"]


class ServerMissing(Exception):
    """The programs of a server are not installed here."""


class _Restartable:
    """A server that can be stopped and started again."""

    _signals: Mapping[Stop, signal.Signals] = {"fast": signal.SIGKILL, "immediate": signal.SIGKILL}
    _server: _Server | None = None

    def __init__(self, user: str | None = None, folder: Path | None = None) -> None:
        self.port = free_port()
        self._account = _hand_over(folder, user) if folder and user else None

    def _begin(self, command: Sequence[str], ready: Callable[[], bool] | None = None) -> None:
        """Run the command; returns when the server takes connections."""
        self._server = _Server(command, self._account)
        self._server.wait_until(ready or (lambda: _listens(self.port)))

    def stop(self, how: Stop = "fast") -> None:
        """Stop it: `fast` breaks connections, `immediate` is a crash."""
        if self._server is not None:
            self._server.stop(self._signals[how])
            self._server = None


class PostgresServer(_Restartable):
    """A PostgreSQL server."""

    _signals: Mapping[Stop, signal.Signals] = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}

    def __init__(self, folder: Path) -> None:
        """Make a cluster in `folder`, which exists and is empty, with one user and one database; and start it."""
        super().__init__("postgres", folder)
        self._data = folder / "data"
        password = folder / "password"
        password.write_text(PASSWORD, encoding="utf-8")
        password.chmod(0o644)
        _run(
            [
                self._path("initdb"),
                *(f"--pgdata={self._data}", f"--username={USER}", f"--pwfile={password}"),
                *("--no-sync", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"),
            ],
            self._account,
        )
        self.start()
        where = ["--host=127.0.0.1", f"--port={self.port}", f"--username={USER}"]
        _run([self._path("createdb"), *where, DATABASE], self._account, {"PGPASSWORD": PASSWORD})

    @property
    def url(self) -> str:
        """Of the database, with the password."""
        return f"postgresql://{USER}:{PASSWORD.replace('/', '%2F')}@127.0.0.1:{self.port}/{DATABASE}"

    def start(self) -> None:
        """Start it; returns when it takes connections."""
        settings = ("listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off")
        options = [part for setting in settings for part in ("-c", setting)]
        self._begin(
            [self._path("postgres"), "-D", str(self._data), "-p", str(self.port), *options], self._answers
        )

    def _answers(self) -> bool:
        command = [self._path("pg_isready"), "--quiet", "--host=127.0.0.1", f"--port={self.port}"]
        return subprocess.run(command, check=False).returncode == 0

    def _path(self, name: str) -> str:
        found = [str(path) for path in sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))]
        program = found[-1] if found else shutil.which(name)
        if program is None:
            raise ServerMissing(f"PostgreSQL is not installed here ({name}; Debian: postgresql)")
        return program


class MariaServer(_Restartable):
    """A MariaDB server, which speaks MySQL's protocol."""

    _signals: Mapping[Stop, signal.Signals] = {"fast": signal.SIGTERM, "immediate": signal.SIGKILL}

    def __init__(self, folder: Path) -> None:
        """Make its files in `folder`, which exists and is empty, with one user and one database; and start it."""
        super().__init__("mysql", folder)
        self._folder = folder
        installed = shutil.which("mariadb-install-db")
        if installed is None:
            raise ServerMissing("MariaDB is not installed here (mariadb-install-db; Debian: mariadb-server)")
        options = ["--auth-root-authentication-method=normal", "--skip-test-db"]
        _run([installed, "--no-defaults", f"--datadir={folder / 'data'}", *options], self._account)
        self.start()
        import pymysql

        with contextlib.closing(pymysql.connect(unix_socket=str(folder / "socket"), user="root")) as root:
            cursor = root.cursor()
            cursor.execute(f"CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4")
            cursor.execute(f"CREATE USER {USER}@'%' IDENTIFIED BY '{PASSWORD}'")
            cursor.execute(f"GRANT ALL ON {DATABASE}.* TO {USER}@'%'")

    @property
    def url(self) -> str:
        """Of the database, with the password."""
        return f"mysql://{USER}:{PASSWORD.replace('/', '%2F')}@127.0.0.1:{self.port}/{DATABASE}"

    def start(self) -> None:
        """Start it; returns when it takes connections."""
        program = shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
        if program is None:
            raise ServerMissing("MariaDB is not installed here (mariadbd; Debian: mariadb-server)")
        self._begin(
            [
                program,
                "--no-defaults",
                f"--datadir={self._folder / 'data'}",
                f"--socket={self._folder / 'socket'}",
                f"--port={self.port}",
                "--bind-address=127.0.0.1",
                # A commit outlives the server, though not the machine.
                "--innodb-flush-log-at-trx-commit=2",
                "--skip-name-resolve",
                f"--log-error={self._folder / 'log'}",
            ]
        )


class GrpcProxy(_Restartable):
    """Optuna's gRPC proxy in front of a storage, in a process of its own."""

    def __init__(self, storage: str) -> None:
        """`storage` is a URL as Optuna knows it."""
        super().__init__()
        self._storage = storage
        self.start()

    @property
    def url(self) -> str:
        """Of the proxy."""
        return f"grpc://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it; returns when it takes connections."""
        code = (
            "import sys\n"
            "from optuna.storages import get_storage, run_grpc_proxy_server\n"
            "run_grpc_proxy_server(get_storage(sys.argv[1]), host='127.0.0.1', port=int(sys.argv[2]))\n"
        )
        self._begin([sys.executable, "-W", "ignore", "-c", code, self._storage, str(self.port)])


class _Server:
    """The process of a server, which is killed when this process ends."""

    _WATCHED = (
        'exec 3<&0; "$@" </dev/null >/dev/null 2>&1 3<&- & echo $!; exec >&-; '
        "cat <&3 >/dev/null; kill -9 $! 2>/dev/null; wait"
    )
    """Starts the server, tells its number, and waits for the end of its own input, which comes with the end of whoever holds the other end."""

    def __init__(self, command: Sequence[str], account: str | None = None) -> None:
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", self._WATCHED, "sh", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            user=account,
            group=account,
            extra_groups=[] if account else None,
            cwd="/",
            # Ctrl-C is for the tests.
            start_new_session=True,
        )
        assert self._shell.stdout is not None
        self._number = int(self._shell.stdout.readline())

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Wait for the server to come up."""
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if not self._lives() or time.monotonic() > deadline:
                self.stop(signal.SIGKILL)
                raise RuntimeError(f"{self._shell.args!r}: the server did not come up")
            time.sleep(0.05)

    def stop(self, how: signal.Signals) -> None:
        """Send a signal and wait for the end."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._number, how)
        deadline = time.monotonic() + START_SECONDS
        while self._lives() and time.monotonic() < deadline:
            time.sleep(0.01)
        self._shell.communicate(timeout=START_SECONDS)

    def _lives(self) -> bool:
        # The shell reaps it in the end only: until then it is a zombie.
        try:
            stat = Path(f"/proc/{self._number}/stat").read_text(encoding="utf-8")
        except (FileNotFoundError, ProcessLookupError):
            return False
        return stat.rpartition(")")[2].split()[0] != "Z"


@contextlib.contextmanager
def server_folder() -> Iterator[Path]:
    """A temporary folder with a short path (sockets have short names) that another user may enter."""
    with tempfile.TemporaryDirectory(prefix="hs-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def free_port() -> int:
    """A port on this machine that nobody uses just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _hand_over(folder: Path, user: str) -> str | None:
    """Make the folder that user's, where root is at work; whom to run as."""
    if os.geteuid() != 0:
        return None
    try:
        shutil.chown(folder, user, user)
    except LookupError:
        raise ServerMissing(
            f"there is no user {user} to run the server as, and it will not run as root"
        ) from None
    return user


def _run(command: Sequence[str], account: str | None, environment: dict[str, str] | None = None) -> None:
    with tempfile.TemporaryFile() as output:
        code = subprocess.run(
            command,
            user=account,
            group=account,
            extra_groups=[] if account else None,
            env=os.environ | (environment or {}),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            timeout=2 * START_SECONDS,
            check=False,
        ).returncode
        output.seek(0)
        if code:
            raise RuntimeError(f"{command[0]} ended with {code}: {output.read().decode(errors='replace')}")


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
