"""What waits: per active batch and model group, how many jobs are pending and how many are at the broker.

The idea: nothing is counted that the kept counters tell already, so a look costs the same however large a batch
is. Only a batch whose waiting jobs are for several model groups is counted through the index.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

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


@dataclass(slots=True)
class Counted:
    """What was counted of batches for several model groups, kept for a while: looking every second then costs little."""

    keep_s: float
    monotonic: Callable[[], float] = time.monotonic
    _found: dict[str, tuple[float, Counter[str]]] = field(default_factory=dict)

    def of(self, batch_id: str, count: Callable[[], Counter[str]]) -> Counter[str]:
        """The pending jobs of a batch by group, counted again when the last count is too old."""
        now = self.monotonic()
        self._found = {name: found for name, found in self._found.items() if now - found[0] < self.keep_s}
        if batch_id not in self._found:
            self._found[batch_id] = (now, count())
        return self._found[batch_id][1]


def waiting_jobs(conn: Connection, counted: Counted | None = None) -> list[WaitingJobs]:
    """What waits or runs in the active batches, oldest batch first, groups by name.

    Args:
        conn: a transaction that reads.
        counted: what a look before this one may have counted, for who looks often.
    """
    counted = counted or Counted(keep_s=0.0)
    rows = active(conn)
    out = _out_by_batch(conn)
    return [each for row in rows for each in _of_batch(conn, row, out[row.id], counted)]


_Out = dict[tuple[str, str], int]
"""Jobs at the broker and in flight, by model group and state."""


def _out_by_batch(conn: Connection) -> defaultdict[str, _Out]:
    out: defaultdict[str, _Out] = defaultdict(dict)
    for batch_id, group, state, number in conn.execute(_OUT):
        out[batch_id][group, state] = number
    return out


def _of_batch(conn: Connection, row: BatchRow, out: _Out, counted: Counted) -> list[WaitingJobs]:
    pending = _pending(conn, row, row.total - row.done - sum(out.values()), counted)
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


def _pending(conn: Connection, row: BatchRow, left: int, counted: Counted) -> Mapping[str, int]:
    groups: Sequence[str] = model_groups_waiting(conn, row.id) if left else ()
    if len(groups) == 1:
        return {groups[0]: left}
    if not groups:
        return {}
    return counted.of(row.id, lambda: _count(conn, row.id))


def _count(conn: Connection, batch_id: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    for query in _PENDING_OF_BATCH:
        counts.update(dict(conn.execute(query, {"batch_id": batch_id}).all()))
    return counts


_OUT = (
    select(job.c.batch_id, job.c.model_group, job.c.state, func.count())
    .where(text(OUT))
    .group_by(job.c.batch_id, job.c.model_group, job.c.state)
)
_PENDING_OF_BATCH = [
    select(job.c.model_group, func.count())
    .where(job.c.batch_id == bindparam("batch_id"), text(predicate))
    .group_by(job.c.model_group)
    for predicate in (PENDING_FRESH, PENDING_DEFERRED)
]
