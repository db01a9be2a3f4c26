"""What waits: per active batch and model group, how many jobs are pending and how many are at the broker.

The idea: nothing is counted that the kept counters tell already, so a look costs the same however large a batch
is. Only a batch whose waiting jobs are for several model groups is counted through the index.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, func, select, text

from promptmill.states import JobState
from promptmill.store.batches import BatchRow, active
from promptmill.store.jobs import model_groups_waiting
from promptmill.store.tables import OUT, PENDING_DEFERRED, PENDING_FRESH, job


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingJobs:
    """Jobs of one batch for one model group that have not begun.

    Attributes:
        pending: in the database.
        queued: with their id at the broker.
        running: begun, for comparison.
    """

    batch_id: str
    batch_name: str
    model_group: str
    pending: int
    queued: int
    running: int


def waiting_jobs(conn: Connection) -> list[WaitingJobs]:
    """What waits or runs in the active batches, oldest batch first, groups by name."""
    return [each for row in active(conn) for each in _of_batch(conn, row)]


def _of_batch(conn: Connection, row: BatchRow) -> list[WaitingJobs]:
    out: dict[tuple[str, str], int] = {
        (group, state): number for group, state, number in conn.execute(_OUT_OF_BATCH, {"batch_id": row.id})
    }
    pending = _pending(conn, row, row.total - row.done - sum(out.values()))
    return [
        WaitingJobs(
            batch_id=row.id,
            batch_name=row.name,
            model_group=group,
            pending=pending.get(group, 0),
            queued=out.get((group, JobState.QUEUED), 0),
            running=out.get((group, JobState.RUNNING), 0),
        )
        for group in sorted(pending.keys() | {group for group, _ in out})
    ]


def _pending(conn: Connection, row: BatchRow, left: int) -> dict[str, int]:
    groups: Sequence[str] = model_groups_waiting(conn, row.id) if left else ()
    if len(groups) == 1:
        return {groups[0]: left}
    if not groups:
        return {}
    counts: Counter[str] = Counter()
    for query in _PENDING_OF_BATCH:
        counts.update(dict(conn.execute(query, {"batch_id": row.id}).all()))
    return counts


_OUT_OF_BATCH = (
    select(job.c.model_group, job.c.state, func.count())
    .where(job.c.batch_id == bindparam("batch_id"), text(OUT))
    .group_by(job.c.model_group, job.c.state)
)
_PENDING_OF_BATCH = [
    select(job.c.model_group, func.count())
    .where(job.c.batch_id == bindparam("batch_id"), text(predicate))
    .group_by(job.c.model_group)
    for predicate in (PENDING_FRESH, PENDING_DEFERRED)
]
