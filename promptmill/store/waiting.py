"""Jobs that wait, moved by the batch: ended when it is canceled or overdue, called back when it is paused.

Each statement spells the predicate of a partial index, so its cost is that of the jobs it moves and not
that of the batch. The caller holds the lock of the batch.
"""

from datetime import datetime
from functools import cache

from sqlalchemy import Connection, Update, bindparam, select, text, update

from promptmill.states import JobState
from promptmill.store.columns import UTCDateTime
from promptmill.store.rowsets import among
from promptmill.store.tables import OUT, PENDING_DEFERRED, PENDING_FRESH, QUEUED, job

MOST_AT_ONCE = 20_000
"""Jobs ended in one transaction: 60 ms on SQLite and 170 ms on Postgres, for which other writers wait."""

_CHANGE = update(job).values(
    state=bindparam("new_state"), queued_at=None, changed_at=bindparam("now", type_=UTCDateTime())
)
_CALL_BACK = _CHANGE.where(job.c.batch_id == bindparam("of_batch"), text(OUT), text(QUEUED))


def end_waiting(conn: Connection, batch_id: str, state: JobState, now: datetime) -> int:
    """`queued` and `pending` jobs of a batch go to a terminal state, at most MOST_AT_ONCE; how many."""
    ended = 0
    for predicate in (f"{OUT} AND {QUEUED}", PENDING_FRESH, PENDING_DEFERRED):
        values = {"of_batch": batch_id, "new_state": state, "now": now, "most": MOST_AT_ONCE - ended}
        ended += conn.execute(_end(conn.dialect.name, predicate), values).rowcount
    return ended


def call_back(conn: Connection, batch_id: str, now: datetime) -> int:
    """`queued` jobs of a batch go back to `pending`; how many. Their messages will be refused."""
    values = {"of_batch": batch_id, "new_state": JobState.PENDING, "now": now}
    return conn.execute(_CALL_BACK, values).rowcount


@cache
def _end(dialect: str, predicate: str) -> Update:
    waiting = (
        select(job.c.id)
        .where(job.c.batch_id == bindparam("of_batch"), text(predicate))
        .limit(bindparam("most"))
    )
    return _CHANGE.where(among(dialect, job.c.id, waiting))
