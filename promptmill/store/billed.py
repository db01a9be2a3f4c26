"""Attempts by their request ids: what a batch says of single calls, to be held against the other side's book.

There is no index on request ids, so this reads the ledger of all batches once, a row at a time.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, func, not_, or_, select

from promptmill.store.ledger import OPEN
from promptmill.store.tables import attempt, purged_batch


class BilledAttempt(NamedTuple):
    """A closed attempt that has a request id; the cost is None when nobody knows it."""

    batch_id: str
    request_id: str
    cost_nanos: int | None
    reserved_nanos: int | None
    outcome: str


def billed(conn: Connection, request_ids: str) -> Iterator[BilledAttempt]:
    """The attempts of all batches whose request id begins so."""
    query = select(
        attempt.c.batch_id,
        attempt.c.request_id,
        attempt.c.cost_nanos,
        attempt.c.reserved_nanos,
        attempt.c.outcome,
    ).where(_begins_so(request_ids))
    for row in conn.execute(query.execution_options(yield_per=10_000)):
        yield BilledAttempt(*row)


def answered_elsewhere(conn: Connection, batch_id: str, request_ids: str) -> int:
    """The attempts of a batch whose request id begins otherwise."""
    elsewhere = (attempt.c.batch_id == batch_id, not_(_begins_so(request_ids)))
    return conn.scalar(select(func.count()).select_from(attempt).where(*elsewhere)) or 0


def without_request_id(conn: Connection, since: datetime) -> tuple[int, int]:
    """Rehearsed attempts that may have been billed and cannot say which call was theirs: unknown, or not yet closed.

    How many, and the nano-dollars set aside for them. Those closed before `since` are left out.
    """
    unknown = (attempt.c.cost_nanos.is_(None), attempt.c.request_id.is_(None))
    late = or_(attempt.c.outcome == OPEN, attempt.c.closed_at >= since)
    found = select(func.count(), func.sum(attempt.c.reserved_nanos)).where(
        attempt.c.simulated, *unknown, late
    )
    count, reserved = conn.execute(found).one()
    return count, int(reserved or 0)


def purged(conn: Connection, since: datetime) -> tuple[int, int]:
    """Rehearsals purged of everything, or about to be, that ended since then: how many, and the attempts they had."""
    found = select(func.count(), func.sum(purged_batch.c.attempts)).where(purged_batch.c.ended_at >= since)
    batches, attempts = conn.execute(found).one()
    return batches, int(attempts or 0)


def _begins_so(request_ids: str) -> ColumnElement[bool]:
    # Not LIKE: its `_` stands for any letter, and in SQLite it takes `A` for `a`.
    return func.substr(attempt.c.request_id, 1, len(request_ids)) == request_ids
