"""Retention: how long prompts and answers are kept, and deleting them without being in anybody's way.

The one idea: many short transactions. Between two of them other writers have their turn, half of the time on
SQLite, and whatever breaks off goes on when it is asked for again.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from promptmill.clock import Clock
from promptmill.store import purging
from promptmill.store.batches import BatchRow
from promptmill.store.database import Database, database_now
from promptmill.store.purging import Part

_TRANSACTION_S = 0.025
_SMALLEST_PAGE = 100
_LARGEST_PAGE = 2_000
_BATCHES = 2_000
_BETWEEN_TRIES_S = 0.1


@dataclass(frozen=True, slots=True)
class Retention:
    """Days after its end that a batch keeps its prompts, its answers, and itself; None for ever."""

    prompts_days: float | None = None
    answers_days: float | None = None
    everything_days: float | None = None

    @property
    def is_for_ever(self) -> bool:
        """Whether nothing is ever deleted."""
        return all(days is None for days in self._days.values())

    @property
    def _days(self) -> Mapping[Part, float | None]:
        days = (self.prompts_days, self.answers_days, self.everything_days)
        return dict(zip(Part, days, strict=True))

    def moments(self, now: datetime) -> Mapping[Part, datetime]:
        """Before when a batch must have ended for a part of it to be deleted."""
        return {part: now - timedelta(days=days) for part, days in self._days.items() if days is not None}

    def due(self, ended_at: datetime, now: datetime) -> frozenset[Part]:
        """What has been kept long enough."""
        age = now - ended_at
        return frozenset(
            part for part, days in self._days.items() if days is not None and age >= timedelta(days=days)
        )


def to_delete(row: BatchRow, wanted: Iterable[Part]) -> frozenset[Part]:
    """What of the wanted is still there; everything holds the rest."""
    parts = frozenset(wanted)
    if Part.EVERYTHING in parts:
        return frozenset({Part.EVERYTHING})
    done = frozenset(Part(each) for each in row.options.get(purging.PURGED, ()))
    return parts - done


def due(database: Database, retention: Retention) -> Iterator[tuple[BatchRow, frozenset[Part]]]:
    """The batches that are kept longer than they should, and what of them; some thousands are read at a time."""
    if retention.is_for_ever:
        return
    with database.read() as conn:
        now = database_now(conn)
    moments = retention.moments(now)
    last: BatchRow | None = None
    while True:
        with database.read() as conn:
            rows = purging.old(conn, moments, after=last, most=_BATCHES)
        for row in rows:
            if parts := to_delete(row, retention.due(row.ended_at or now, now)):
                yield row, parts
        if len(rows) < _BATCHES:
            return
        last = rows[-1]


def purge(
    database: Database,
    row: BatchRow,
    parts: frozenset[Part],
    *,
    clock: Clock,
    sleep: Callable[[float], object] = time.sleep,
    progress: Callable[[int, int], object] | None = None,
) -> None:
    """Delete parts of an ended batch; one that is purged of them already stays as it is. To be followed by `forget`.

    Args:
        database: where it is.
        row: the batch.
        parts: what to delete.
        clock: measures the transactions.
        sleep: waits between two transactions, so that others can write.
        progress: called with (jobs gone through, of how many).

    Raises:
        InvalidTransition: it has not ended.
        NotFound: it is gone altogether.
        Unavailable: the database is away; what is deleted is deleted, and a second call does the rest.
    """
    with database.begin() as conn:
        purging.begin(conn, row.id, parts)
    first: int | None = 0
    size = _SMALLEST_PAGE
    while first is not None:
        with database.begin() as conn:
            began = clock.monotonic()  # not before: the wait for another writer says nothing of the rows
            following = purging.empty_page(conn, row.id, parts, first, size)
        held = clock.monotonic() - began
        if progress:
            progress(min(row.total, first + size), row.total)
        first, size = following, _next_size(size, held)
        if database.dialect == "sqlite":
            sleep(held)
    with database.begin() as conn:
        purging.finish(conn, row.id, parts, database_now(conn))


def forget(
    database: Database, *, clock: Clock, patience: float, sleep: Callable[[float], object] = time.sleep
) -> bool:
    """Empty SQLite's log of what was deleted, trying for `patience` seconds; False where somebody kept reading.

    Once after all that was to be deleted: nobody can write while the log is emptied.

    Raises:
        Unavailable: the database is away.
    """
    until = clock.monotonic() + patience
    while not database.forget_log():
        if clock.monotonic() >= until:
            return False
        sleep(_BETWEEN_TRIES_S)
    return True


def _next_size(size: int, seconds: float) -> int:
    """The jobs that would have taken 25 ms; at most half of what it was, or twice."""
    wanted = int(size * min(2.0, max(0.5, _TRANSACTION_S / max(seconds, 1e-6))))
    return min(_LARGEST_PAGE, max(_SMALLEST_PAGE, wanted))
