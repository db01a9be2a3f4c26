"""Jobs that wait, moved by the batch: ended when it is canceled or overdue, called back when it is paused.

Each statement spells the predicate of a partial index, so its cost is that of the jobs it moves and not
that of the batch. The caller holds the lock of the batch.
"""

from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Connection, String, bindparam, select, text, update
from sqlalchemy.sql.dml import ReturningUpdate

from promptmill.states import JobState
from promptmill.store.columns import UTCDateTime
from promptmill.store.guards import ended
from promptmill.store.rowsets import among
from promptmill.store.tables import OUT, PENDING_DEFERRED, PENDING_FRESH, QUEUED, job
from promptmill.store.tallies import ENDED, Tally

MOST_AT_ONCE = 20_000
"""Jobs ended in one transaction: 60 ms on SQLite and 170 ms on Postgres, for which other writers wait."""

_CHANGED: dict[str, Any] = {"queued_at": None, "changed_at": bindparam("now", type_=UTCDateTime())}
_CALL_BACK = (
    update(job)
    .values(state=JobState.PENDING, **_CHANGED)
    .where(job.c.batch_id == bindparam("of_batch"), text(OUT), text(QUEUED))
)


def end_waiting(conn: Connection, batch_id: str, state: JobState, now: datetime) -> Tally:
    """`queued` and `pending` jobs of a batch go to a terminal state, at most MOST_AT_ONCE; how many to which.

    One that has an answer, cut off and kept, has succeeded.
    """
    tally = Tally()
    for predicate in (f"{OUT} AND {QUEUED}", PENDING_FRESH, PENDING_DEFERRED):
        most = MOST_AT_ONCE - tally.done
        values = {"of_batch": batch_id, "new_state": state, "now": now, "most": most}
        for row in conn.execute(_end(conn.dialect.name, predicate), values).all():
            tally.end(row)
    return tally


def call_back(conn: Connection, batch_id: str, now: datetime) -> int:
    """`queued` jobs of a batch go back to `pending`; how many. Their messages will be refused."""
    return conn.execute(_CALL_BACK, {"of_batch": batch_id, "now": now}).rowcount


@cache
def _end(dialect: str, predicate: str) -> ReturningUpdate[Any]:
    waiting = (
        select(job.c.id)
        .where(job.c.batch_id == bindparam("of_batch"), text(predicate))
        .limit(bindparam("most"))
    )
    return (
        update(job)
        .values(state=ended(bindparam("new_state", type_=String())), **_CHANGED)
        .where(among(dialect, job.c.id, waiting))
        .returning(*ENDED)
    )
