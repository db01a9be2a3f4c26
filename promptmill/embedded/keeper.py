"""The keeper: a small process beside each embedded server, which ends it when nobody uses it any more.

The idea: three locks in the server's folder, all freed by the kernel when their holder dies.

    users.lock    shared by everybody who uses the server; the keeper ends when it can have it alone
    keeper.lock   held by the keeper; two programs that start at once start two keepers, and one of them yields
    server.lock   held by the keeper and, inherited, by the server: while it is held, no other may open the data

A keeper is a daemon with a session of its own: neither Ctrl-C in a terminal nor the end of the program that started
it reaches it. A server that dies while it is used is started again at the same port.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from promptmill.embedded import locks, process
from promptmill.embedded.postgres import Postgres
from promptmill.embedded.redis import Redis

USERS_LOCK = "users.lock"
KEEPER_LOCK = "keeper.lock"
SERVER_LOCK = "server.lock"
ADDRESS_FILE = "address.json"
LOG_FILE = "server.log"

START_PATIENCE = 60.0  # seconds; a long append-only file takes its time to read
_SAME_PORT_FOR = 10.0  # seconds that a server which has died is started where its users look for it
_START_TRIES = 5  # somebody else may take a free port first
_LOCK_PATIENCE = 1.0  # seconds; others hold the keeper's lock for an instant, to see whether it is held
_LOG_BYTES = 1_000_000  # a longer log is begun anew when its server is started
_SHORT_POLL = 0.01  # seconds between two looks at what will be over soon
_POLL = 0.1  # seconds between two looks at whether anybody is left: a sixth of a percent of a core


class Engine(Protocol):
    """A kind of server."""

    @property
    def stop_signal(self) -> signal.Signals:
        """What asks it to end in good order."""
        ...

    @property
    def durable(self) -> bool:
        """Whether its folder outlives it."""
        ...

    def start(self, folder: Path, *, port: int, password: str, lock: int) -> subprocess.Popen[bytes]:
        """Start it with its data in `folder`; the child inherits the file descriptor `lock`."""
        ...

    def answers(self, *, port: int, password: str) -> bool:
        """Whether this very server is ready at `port`."""
        ...

    def url(self, *, port: int, password: str) -> str:
        """Its address for a client."""
        ...


ENGINES: Mapping[str, Callable[[Path], Engine]] = {
    "redis": lambda program: Redis(program, durable=True),
    "throwaway-redis": lambda program: Redis(program, durable=False),
    "throwaway-postgres": Postgres,
}


@dataclass(frozen=True)
class Address:
    """Where the server of a folder is, or was last; `pid` is the server's own."""

    port: int
    password: str
    pid: int

    @classmethod
    def read(cls, folder: Path) -> "Address | None":
        """The address in `folder`; None when there is none that can be read."""
        try:
            return cls(**json.loads((folder / ADDRESS_FILE).read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, folder: Path) -> None:
        """Replace the address in `folder` at once: a reader sees the old one or the new one."""
        draft = folder / f"{ADDRESS_FILE}.new"
        draft.touch(mode=0o600)
        draft.write_text(json.dumps(asdict(self)))
        draft.replace(folder / ADDRESS_FILE)


def keep(folder: Path, engine: Engine, announce: Callable[[], None]) -> None:
    """Run the server of `folder` until nobody uses it; `announce` when it answers. Returns at once if another keeper does.

    Locks that are taken here are held until this process ends: nobody may come in between.

    Raises:
        ServerFailedToStart: it ended or was silent at every try.
    """
    if _take(folder / KEEPER_LOCK, patience=_LOCK_PATIENCE) is None:
        announce()
        return
    _begin_log_anew_when_long(folder / LOG_FILE)
    server = _Server(folder, engine, _end_leftover(folder, engine))
    try:
        server.start()
        announce()
        users = locks.open_file(folder / USERS_LOCK)
        while not locks.take_alone(users):
            time.sleep(_POLL)
            if server.is_dead():
                server.start(same_port_for=_SAME_PORT_FOR)
    finally:
        server.stop()
    if not engine.durable:
        shutil.rmtree(folder, ignore_errors=True)


class ServerFailedToStart(Exception):
    """The server ended or was silent at every try; what it said is in its log."""


class _Server:
    """The child process of one folder, over restarts."""

    def __init__(self, folder: Path, engine: Engine, lock: int) -> None:
        self._folder = folder
        self._engine = engine
        self._lock = lock
        self._child: subprocess.Popen[bytes] | None = None

    def start(self, *, same_port_for: float = 0.0) -> None:
        """Start it where it was last, again and again for so many seconds, or else at a free port; note the address."""
        last = Address.read(self._folder)
        password = last.password if last else secrets.token_hex(16)
        begun = time.monotonic()
        deadline = begun + START_PATIENCE
        for port in self._ports(last, until=begun + same_port_for):
            self._child = self._engine.start(self._folder, port=port, password=password, lock=self._lock)
            while not self.is_dead() and time.monotonic() < deadline:
                if self._engine.answers(port=port, password=password):
                    Address(port, password, self._child.pid).write(self._folder)
                    return
                time.sleep(_SHORT_POLL)
            self.stop()
        raise ServerFailedToStart

    def _ports(self, last: Address | None, *, until: float) -> Iterator[int]:
        """Where to try it, one after the other: users know where it was, so it stays there while nobody else does."""
        if last:
            yield last.port
            while time.monotonic() < until and process.is_free(last.port):
                time.sleep(_POLL)  # the children of a Postgres that was killed hold its memory for a moment
                yield last.port
        for _ in range(_START_TRIES):
            yield process.free_port()

    def is_dead(self) -> bool:
        """Whether it has ended."""
        return self._child is None or self._child.poll() is not None

    def stop(self) -> None:
        """End it, if it runs."""
        if self._child:
            process.stop(self._child, self._engine.stop_signal)


def _begin_log_anew_when_long(log: Path) -> None:
    if log.exists() and log.stat().st_size > _LOG_BYTES:
        os.truncate(log, 0)


def _take(path: Path, *, patience: float) -> int | None:
    """Hold the lock `path` alone; None when it is not to be had within `patience` seconds."""
    deadline = time.monotonic() + patience
    while (lock := locks.try_exclusive(path)) is None and time.monotonic() < deadline:
        time.sleep(_SHORT_POLL)
    return lock


def _end_leftover(folder: Path, engine: Engine) -> int:
    """Hold the server's lock, ending a server whose keeper was killed before. Its port is taken over later.

    The lock proves that the process id is still that server's: nobody else can hold it, since we are the keeper.
    """
    address = Address.read(folder)
    for number in (engine.stop_signal, signal.SIGKILL):
        lock = locks.try_exclusive(folder / SERVER_LOCK)
        if lock is None and address:
            with contextlib.suppress(ProcessLookupError):
                os.kill(address.pid, number)
            lock = _take(folder / SERVER_LOCK, patience=process.STOP_PATIENCE)
        if lock is not None:
            return lock
    raise ServerFailedToStart
