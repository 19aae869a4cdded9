"""A real PostgreSQL for the tests: a private data directory, a Unix socket, no port.

As root it runs as the user postgres, whom the Debian package makes; the server refuses root.
"""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
from places import MEMORY

USER = "postgres"
START_SECONDS_MAX = 60


class PostgresServer:
    """A server that can be killed and started again.

    Args:
        programs: The directory of its programs.
        directory: Where its data and its socket go; USER can write there.
    """

    def __init__(self, programs: Path, directory: Path) -> None:
        self._programs = programs
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def conninfo(self, database: str = USER) -> str:
        return f"host={self._directory} user={USER} dbname={database}"

    def start(self) -> None:
        command = [
            *as_user(leash=True), self._programs / "postgres", "-D", self._directory / "data",
            "-k", self._directory, "-c", "listen_addresses=", "-c", "max_connections=50",
            "-c", "shared_buffers=16MB", "-c", "autovacuum=off",
        ]  # fmt: skip
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/"
            )
        self._wait()

    def kill(self) -> None:
        """End it as a crash would: no shutdown checkpoint, recovery at the next start."""
        assert self._process is not None
        self._process.send_signal(signal.SIGQUIT)  # SIGKILL would leave its shared memory
        self._process.wait(START_SECONDS_MAX)

    def execute(self, statement: str, *values: object, database: str = USER) -> list[tuple]:
        with psycopg.connect(self.conninfo(database), autocommit=True) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def _wait(self) -> None:
        limit = time.monotonic() + START_SECONDS_MAX
        while True:
            try:
                psycopg.connect(self.conninfo()).close()
            except psycopg.OperationalError as error:
                assert self._process is not None
                if self._process.poll() is not None or time.monotonic() > limit:
                    tail = (self._directory / "log").read_text(errors="replace")[-2000:]
                    raise RuntimeError(f"PostgreSQL does not serve: {error}\n{tail}") from error
                time.sleep(0.02)
            else:
                return


def as_user(*, leash: bool = False) -> list[str]:
    """What a command begins with that must not run as root; on a leash it dies with us."""
    if os.geteuid() != 0:
        return []
    death = ["--pdeathsig", "KILL"] if leash else []
    identity = [f"--reuid={USER}", f"--regid={USER}", "--init-groups"]
    return [shutil.which("setpriv") or "setpriv", *identity, *death]


@contextlib.contextmanager
def postgres(programs: Path) -> Iterator[PostgresServer]:
    """Run a new server. A test's own directory would be too long a name for a socket."""
    memory = MEMORY if os.access(MEMORY, os.W_OK | os.X_OK) else None
    directory = Path(tempfile.mkdtemp(prefix="walengine-pg-", dir=memory))
    try:
        if os.geteuid() == 0:
            shutil.chown(directory, USER, USER)
        subprocess.run(
            [
                *as_user(), programs / "initdb", "-D", directory / "data", "-U", USER,
                "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync",
            ],
            check=True, stdout=subprocess.DEVNULL, cwd="/",
        )  # fmt: skip
        server = PostgresServer(programs, directory)
        server.start()
        try:
            yield server
        finally:
            server.kill()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def fresh_database(server: PostgresServer) -> str:
    """Make a database; returns its name."""
    name = f"t{secrets.token_hex(8)}"
    server.execute(f"CREATE DATABASE {name}")
    return name
