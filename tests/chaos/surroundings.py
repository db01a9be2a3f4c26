"""What a chaos run breaks: a Redis, a database and workers, each a process of ours that is known by its id.

The one idea: everything is done from outside, as an operator or an accident would; no part of the product is asked.
"""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import psycopg
from redis import Redis, RedisError

from promptmill.embedded import throwaway_postgres
from promptmill.embedded.redis import find_server
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
_KEEPING = ("--appendonly", "yes", "--appendfsync", "everysec", "--save", "")
_FORGETTING = ("--appendonly", "no", "--save", "")

Rows = Sequence[tuple[Any, ...]]


class RedisServer:
    """A Redis at one port with a folder of its own; `keeps` says whether it finds its data again."""

    def __init__(self, folder: Path, *, keeps: bool) -> None:
        folder.mkdir()
        self._folder = folder
        self._keeps = keeps
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self.client = Redis.from_url(self.url, socket_timeout=2, socket_connect_timeout=1)

    def start(self) -> None:
        command = [str(find_server()), "--port", str(self._port), "--bind", "127.0.0.1"]
        command += ["--maxmemory-policy", "noeviction", *(_KEEPING if self._keeps else _FORGETTING)]
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self._folder, stdout=log, stderr=log)

    @property
    def answers(self) -> bool:
        with contextlib.suppress(RedisError):
            return bool(self.client.ping())
        return False

    def end(self, how: str) -> None:
        """By `kill -9` or `SIGTERM`; returns when it is gone."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL if how == "kill -9" else signal.SIGTERM)
            self._process.wait()


class DatabaseServer(Protocol):
    """A database that can be cut off, and asked in plain SQL."""

    url: str

    def cut(self, how: str) -> str:
        """Break it; what was done, in words. Raises an error of the driver when it is away already."""
        ...

    def mend(self) -> None:
        """Put right what lasts."""
        ...

    def ask(self, query: str) -> Rows:
        """The rows of a query."""
        ...


class SqliteFile:
    """Cut off by another process that holds the write lock."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "promptmill.db"
        self.url = f"sqlite:///{self._path}"
        self._holder: sqlite3.Connection | None = None

    def cut(self, how: str) -> str:
        self._holder = sqlite3.connect(self._path, isolation_level=None, timeout=10)
        self._holder.execute("BEGIN IMMEDIATE")
        return how

    def mend(self) -> None:
        if self._holder is not None:
            self._holder.close()
            self._holder = None

    def ask(self, query: str) -> Rows:
        with contextlib.closing(sqlite3.connect(self._path, timeout=10)) as connection:
            return connection.execute(query).fetchall()


class PostgresServer:
    """Cut off by ending its sessions, by a restart, or by a crash; its keeper starts it again."""

    def __init__(self, url: str) -> None:
        self.url = url
        # A throwaway server commits before it has written; a crash must lose nothing that was committed.
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("ALTER DATABASE postgres SET synchronous_commit = on")

    def cut(self, how: str) -> str:
        with psycopg.connect(self.url, autocommit=True, connect_timeout=2) as connection:
            if how == "terminate backends":
                ended = connection.execute(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                    " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
                ).fetchone()
                return f"{how}: {ended and ended[0]}"
            file = connection.execute("SELECT pg_read_file('postmaster.pid')").fetchone()
        assert file is not None
        os.kill(int(str(file[0]).split()[0]), signal.SIGINT if how == "restart" else signal.SIGQUIT)
        return how

    def mend(self) -> None:
        return

    def ask(self, query: str) -> Rows:
        with psycopg.connect(self.url, autocommit=True, connect_timeout=2) as connection:
            return connection.execute(query.encode()).fetchall()


@contextlib.contextmanager
def database_server(kind: str, folder: Path) -> Iterator[DatabaseServer]:
    """A database of that kind, for the length of the block."""
    if kind == "sqlite":
        yield SqliteFile(folder)
        return
    with throwaway_postgres() as url:
        yield PostgresServer(url)


class Crew:
    """Worker processes, each at a place of its own; a place may be empty for a while."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._environment = environment
        self._places: dict[int, subprocess.Popen[bytes]] = {}
        self.killed: set[int] = set()
        self.ended: dict[int, int] = {}

    def start(self, place: int) -> int:
        """`celery -A workers.app worker`, as a person starts it; its process id."""
        with (self._folder / f"worker-{place}.log").open("ab") as log:
            self._places[place] = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "workers.app", "worker", "-n", f"w{place}@chaos"],
                env=self._environment,
                cwd=self._folder,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self._places[place].pid

    def kill(self, place: int) -> int | None:
        """End the one at that place without a word; its process id, None when there is none."""
        worker = self._places.pop(place, None)
        if worker is None:
            return None
        worker.kill()
        worker.wait()
        self.killed.add(worker.pid)
        return worker.pid

    def fallen(self) -> list[tuple[int, int]]:
        """Places whose worker ended by itself, and its exit code; they are empty now."""
        gone = [
            (place, code) for place, worker in self._places.items() if (code := worker.poll()) is not None
        ]
        for place, code in gone:
            self.ended[self._places.pop(place).pid] = code
        return gone

    def stop(self) -> list[int]:
        """End all politely; their exit codes."""
        for worker in self._places.values():
            worker.send_signal(signal.SIGTERM)
        codes = []
        for worker in self._places.values():
            try:
                codes.append(worker.wait(30))
            except subprocess.TimeoutExpired:
                worker.kill()
                codes.append(worker.wait())
        self._places.clear()
        return codes

    def logs(self) -> list[Path]:
        """What they wrote, a file a place."""
        return sorted(self._folder.glob("worker-*.log"))


def environment_of(folder: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """What workers and commands of this run see: nothing of the surroundings."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PYTHONPATH": str(ROOT),
        "PROMPTMILL_HOME": str(folder / "home"),
        "COLUMNS": "120",
        **settings,
    }


def wait_until(is_true: Callable[[], object], what: str, patience_s: float) -> None:
    """Return when it is true.

    Raises:
        TimeoutError: it was not in time.
    """
    deadline = time.monotonic() + patience_s
    while not is_true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {patience_s:g} s: {what}")
        time.sleep(0.05)
