"""Storing: checked rows go into a batch by short transactions, and between them other writers have their turn.

SQLite has one write lock. Who waits for it looks again at intervals, so what counts for a worker beside a large
submit is the part of the time in which the lock is free: half of it, here.
"""

import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

from promptmill.clock import Clock
from promptmill.states import BatchState
from promptmill.store import control, jobs
from promptmill.store.database import Database
from promptmill.store.jobs import NewJob

# Seconds; 50 ms at most is what other writers are promised.
_TRANSACTION = 0.025
# Below this the commit costs more than the rows, and 200 rows are 10 ms on a slow machine.
_SMALLEST_CHUNK = 200
_LARGEST_CHUNK = 5_000


class Stored(NamedTuple):
    """How many jobs of a batch are stored, and how many of these now: the others were there before."""

    rows: int
    now: int


def store(
    database: Database,
    batch_id: str,
    new_jobs: Iterator[NewJob],
    clock: Clock,
    sleep: Callable[[float], object] = time.sleep,
) -> Iterator[Stored]:
    """Store all jobs and seal the batch; after every commit, how far it is."""
    stored, size, held, free_since = Stored(0, 0), _SMALLEST_CHUNK, 0.0, clock.monotonic()
    while chunk := list(islice(new_jobs, size)):
        if database.dialect == "sqlite":
            sleep(max(0.0, held - (clock.monotonic() - free_since)))
        with database.begin() as conn:
            began = clock.monotonic()  # not before: the wait for another writer says nothing of the rows
            new = jobs.insert_many(conn, batch_id, chunk, clock.now())
        free_since = clock.monotonic()
        held = free_since - began
        size = _next_size(size, held)
        stored = Stored(stored.rows + len(chunk), stored.now + new)
        yield stored
    _seal(database, batch_id, clock)


def _seal(database: Database, batch_id: str, clock: Clock) -> None:
    with database.begin() as conn:
        # Another submit of the same may have been first.
        if control.lock(conn, batch_id) is BatchState.ADMITTING:
            control.seal(conn, batch_id, clock.now())


def _next_size(size: int, seconds: float) -> int:
    """The rows that would have taken 25 ms; one slow commit at most halves, one quick one at most doubles."""
    wanted = int(size * min(2.0, max(0.5, _TRANSACTION / max(seconds, 1e-6))))
    return min(_LARGEST_CHUNK, max(_SMALLEST_CHUNK, wanted))
