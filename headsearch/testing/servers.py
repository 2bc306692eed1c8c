"""Database servers for tests: real ones, started in a temporary folder, listening to this machine only.

A server will not run as root; started by root, it runs as the user that its Debian package made.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

USER, PASSWORD, DATABASE = "headsearch", "s3cret/pass", "studies"
START_SECONDS = 120.0
"""For a server to come up on a busy machine."""


class ServerMissing(Exception):
    """The programs of a server are not installed here."""


class PostgresServer:
    """A PostgreSQL server that can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        """Make a cluster in `folder`, which exists and is empty, with one user and one database; and start it."""
        self._data = folder / "data"
        self._log = folder / "log"
        self.port = free_port()
        self._account = _hand_over(folder, "postgres")
        password = folder / "password"
        password.write_text(PASSWORD, encoding="utf-8")
        password.chmod(0o644)
        self._program(
            "initdb", "--no-sync", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", f"--username={USER}", f"--pwfile={password}"
        )  # fmt: skip
        self.start()
        self._program("createdb", DATABASE, data=False)

    @property
    def url(self) -> str:
        """Of the database, with the password."""
        return f"postgresql://{USER}:{PASSWORD.replace('/', '%2F')}@127.0.0.1:{self.port}/{DATABASE}"

    def start(self) -> None:
        """Start it; returns when it takes connections."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c fsync=off -c unix_socket_directories=''"
        self._program("pg_ctl", "start", "-w", f"-t{START_SECONDS:.0f}", f"-l{self._log}", "-o", options)

    def stop(self, mode: str = "fast") -> None:
        """Stop it: `fast` breaks connections, `immediate` is a crash."""
        self._program("pg_ctl", "stop", "-w", f"-m{mode}")

    def _program(self, name: str, *arguments: str, data: bool = True) -> None:
        found = [str(path) for path in sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))]
        program = found[-1] if found else shutil.which(name)
        if program is None:
            raise ServerMissing(f"PostgreSQL is not installed here ({name}; Debian: postgresql)")
        where = [f"--pgdata={self._data}"] if data else []
        environment = {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.port),
            "PGUSER": USER,
            "PGPASSWORD": PASSWORD,
        }
        _run([program, *where, *arguments], self._account, environment)


class MariaServer:
    """A MariaDB server, which speaks MySQL's protocol."""

    def __init__(self, folder: Path) -> None:
        """Make its files in `folder`, which exists and is empty, with one user and one database; and start it."""
        self._folder = folder
        self.port = free_port()
        self._account = _hand_over(folder, "mysql")
        self._process: subprocess.Popen[bytes] | None = None
        installed = shutil.which("mariadb-install-db")
        if installed is None:
            raise ServerMissing("MariaDB is not installed here (mariadb-install-db; Debian: mariadb-server)")
        _run(
            [
                installed,
                "--no-defaults",
                f"--datadir={folder / 'data'}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            ],
            self._account,
        )
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
        self._process = subprocess.Popen(
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
            ],
            user=self._account,
            group=self._account,
            extra_groups=[] if self._account else None,
            cwd=self._folder,
        )
        _wait_for(self.port, self._process)

    def stop(self, mode: str = "fast") -> None:
        """Stop it: `fast` in good order, `immediate` by killing it."""
        if self._process is not None:
            if mode == "immediate":
                self._process.kill()
            else:
                self._process.terminate()
            self._process.wait(60)
            self._process = None


class GrpcProxy:
    """Optuna's gRPC proxy in front of a storage, in a process of its own."""

    def __init__(self, storage: str) -> None:
        """`storage` is a URL as Optuna knows it."""
        self._storage = storage
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
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
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code, self._storage, str(self.port)],
            stderr=subprocess.DEVNULL,
        )
        _wait_for(self.port, self._process)

    def stop(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(60)
            self._process = None


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
    # To files, not pipes: a server that is started keeps them open.
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


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    process.kill()
    raise RuntimeError(f"the server did not come up within {START_SECONDS:g} s")
