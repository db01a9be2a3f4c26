"""Retention: how long prompts and answers are kept, and deleting them without being in anybody's way.

The one idea: many short transactions. Between two of them other writers have their turn, half of the time on
SQLite, and whatever breaks off goes on when it is asked for again.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from promptmill.clock import Clock
from promptmill.store import batches, purging
from promptmill.store.batches import BatchRow
from promptmill.store.database import Database, database_now
from promptmill.store.purging import Part

_TRANSACTION_S = 0.025
_SMALLEST_PAGE = 100
_LARGEST_PAGE = 2_000


@dataclass(frozen=True, slots=True)
class Retention:
    """Days after its end that a batch keeps its prompts, its answers, and itself; None for ever."""

    prompts_days: float | None = None
    answers_days: float | None = None
    everything_days: float | None = None

    @property
    def is_for_ever(self) -> bool:
        """Whether nothing is ever deleted."""
        return not any(self._days.values())

    @property
    def _days(self) -> Mapping[Part, float | None]:
        days = (self.prompts_days, self.answers_days, self.everything_days)
        return dict(zip(Part, days, strict=True))

    def shortest(self) -> timedelta | None:
        """How old the youngest batch is that something is to be deleted of."""
        given = [days for days in self._days.values() if days is not None]
        return timedelta(days=min(given)) if given else None

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


def due(database: Database, retention: Retention) -> Sequence[tuple[BatchRow, frozenset[Part]]]:
    """The batches that are kept longer than they should, and what of them."""
    if (youngest := retention.shortest()) is None:
        return []
    with database.read() as conn:
        now = database_now(conn)
        rows = batches.ended_before(conn, now - youngest)
    found = ((row, to_delete(row, retention.due(row.ended_at or now, now))) for row in rows)
    return [(row, parts) for row, parts in found if parts]


def purge(
    database: Database,
    row: BatchRow,
    parts: frozenset[Part],
    *,
    clock: Clock,
    sleep: Callable[[float], object] = time.sleep,
    progress: Callable[[int, int], object] | None = None,
) -> None:
    """Delete parts of an ended batch; one that is purged of them already stays as it is.

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
    database.forget_log()


def _next_size(size: int, seconds: float) -> int:
    """The jobs that would have taken 25 ms; at most half of what it was, or twice."""
    wanted = int(size * min(2.0, max(0.5, _TRANSACTION_S / max(seconds, 1e-6))))
    return min(_LARGEST_PAGE, max(_SMALLEST_PAGE, wanted))
