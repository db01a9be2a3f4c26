"""Jobs that wait, moved by the batch: ended when it is canceled or overdue, called back when it is paused.

Each statement spells the predicate of a partial index, so its cost is that of the jobs it moves and not
that of the batch. The caller holds the lock of the batch.
"""

from datetime import datetime

from sqlalchemy import Connection, bindparam, text, update

from promptmill.states import JobState
from promptmill.store.columns import UTCDateTime
from promptmill.store.tables import OUT, PENDING_DEFERRED, PENDING_FRESH, QUEUED, job

_IN_BATCH = (
    update(job)
    .where(job.c.batch_id == bindparam("of_batch"))
    .values(
        state=bindparam("new_state"),
        queued_at=None,
        changed_at=bindparam("now", type_=UTCDateTime()),
    )
)
_FRESH = _IN_BATCH.where(text(PENDING_FRESH))
_DEFERRED = _IN_BATCH.where(text(PENDING_DEFERRED))
_QUEUED = _IN_BATCH.where(text(OUT), text(QUEUED))


def end_waiting(conn: Connection, batch_id: str, state: JobState, now: datetime) -> int:
    """`pending` and `queued` jobs of a batch go to a terminal state; how many."""
    values = {"of_batch": batch_id, "new_state": state, "now": now}
    return sum(conn.execute(statement, values).rowcount for statement in (_FRESH, _DEFERRED, _QUEUED))


def call_back(conn: Connection, batch_id: str, now: datetime) -> int:
    """`queued` jobs of a batch go back to `pending`; how many. Their messages will be refused."""
    return conn.execute(_QUEUED, {"of_batch": batch_id, "new_state": JobState.PENDING, "now": now}).rowcount
