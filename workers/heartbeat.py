"""One row per process, kept fresh on a thread of its own: a process lives while its row is fresh.

The thread has a connection of its own and the database's clock, so neither a busy loop nor a wrong local
clock makes a live worker look dead. It ends for nothing but `stop`: a worker that works and does not beat
would have its jobs taken away and called again.
"""

import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import promptmill
from promptmill.errors import Unavailable
from promptmill.logs import get_logger
from promptmill.store import workers as store_workers
from promptmill.store.database import Database, database_now
from promptmill.store.workers import NewWorker
from workers.timekeeping import DatabaseClock, jumped

log = get_logger(__name__)

WAY_BACK_S = 25.0
"""Seconds after an outage until the last process beats again, at most: a connection on which nothing comes back is given
up after 20 (`tcp_user_timeout`), and a new one may take 5 (`connect_timeout`); see `store.engines`. And no more than the
outage itself took, because TCP tries again in intervals that double."""


@dataclass(slots=True)
class Heartbeat:
    """Registers the process, beats every `every` seconds, and signs it off at the end."""

    database: Database
    worker_id: str
    endpoint: str
    slots: int
    running: Callable[[], int]
    clock: DatabaseClock
    every: float = 3.0
    way_back: float = WAY_BACK_S
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _beaten_at: float = float("-inf")
    _steady_since: float = float("inf")

    def start(self) -> None:
        """Register at once, then beat on a thread.

        Raises:
            Unavailable: the database does not answer.
        """
        self._register()
        self._thread = threading.Thread(target=self._run, name="promptmill-heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Sign the process off."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        try:
            with self.database.begin() as connection:
                store_workers.leave(connection, self.worker_id, database_now(connection))
        except Unavailable as error:
            log.warning("sign_off_failed", worker_id=self.worker_id, error=str(error))

    def _run(self) -> None:
        while not self._stop.wait(self.every):
            try:
                self._beat()
            except Exception as error:  # noqa: BLE001  # see the module's docstring
                log.warning("heartbeat_missed", worker_id=self.worker_id, error=type(error).__name__)

    def steady_for(self) -> float:
        """Seconds since which every beat was on time; 0 while they are not, and after that until all can be back.

        After the database was away, or its clock was set, all heartbeats are old, those of live processes too.
        Who judges them by their age must first have seen that beats go through again, and not only its own: a
        database that was silent is found again by each process at another time.
        """
        now = time.monotonic()
        return 0.0 if now - self._beaten_at > 2 * self.every else max(0.0, now - self._steady_since)

    def _beat(self) -> None:
        with self.database.begin() as connection:
            now = database_now(connection)
            anew = jumped(self.clock, now)
            self.clock.set(now)
            known = store_workers.beat(connection, self.worker_id, self.running(), now)
        if not known:
            self._register()
        if anew:
            log.warning("database_clock_jumped", worker_id=self.worker_id)
        self._note_beat(anew=anew)

    def _note_beat(self, *, anew: bool = False) -> None:
        now = time.monotonic()
        silent = now - self._beaten_at
        if self._beaten_at == float("-inf"):
            self._steady_since = now
        elif silent > 2 * self.every:
            self._steady_since = now + min(silent, self.way_back)
        elif anew:
            self._steady_since = max(now, self._steady_since)
        self._beaten_at = now

    def _register(self) -> None:
        worker = NewWorker(
            id=self.worker_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=promptmill.__version__,
            endpoint=self.endpoint,
            slots=self.slots,
        )
        with self.database.begin() as connection:
            now = database_now(connection)
            self.clock.set(now)
            store_workers.register(connection, worker, now)
        self._note_beat()
