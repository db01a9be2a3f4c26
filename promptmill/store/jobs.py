"""Jobs: read, and moved between `pending` and `queued`. Admission and outcomes are files of their own."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, bindparam, or_, select, text, union_all, update
from sqlalchemy.sql.dml import ReturningUpdate

from promptmill.states import JobState
from promptmill.store.admission import NewJob, insert_many
from promptmill.store.columns import UTCDateTime
from promptmill.store.guards import BATCH_IS_ACTIVE, is_in
from promptmill.store.loading import LoadedJob, batches_of, load
from promptmill.store.outcomes import (
    Completion,
    Deferral,
    Failure,
    complete,
    defer,
    expire_overdue,
    fail,
    replied_by,
)
from promptmill.store.prepared import Prepared
from promptmill.store.rowsets import Rowset
from promptmill.store.tables import (
    PENDING_DEFERRED,
    PENDING_FRESH,
    QUEUED,
    SERVED,
    job,
)
from promptmill.store.tallies import lock_batches_of

__all__ = [
    "Completion",
    "Deferral",
    "Failure",
    "LoadedJob",
    "NewJob",
    "PendingJob",
    "QueuedJob",
    "complete",
    "defer",
    "expire_overdue",
    "fail",
    "groups_pending",
    "insert_many",
    "load",
    "lock_batches_of",
    "lost_queued",
    "model_groups_waiting",
    "queue",
    "queued_under",
    "replied_by",
    "select_pending",
    "unqueue",
]


@dataclass(frozen=True, slots=True)
class PendingJob:
    """What the dispatcher weighs."""

    id: str
    seq: int
    estimated_input_tokens: int
    estimated_output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedJob:
    """What a message carries."""

    job_id: str
    dispatch: int
    batch: str
    model: str
    attempts: int


def queued_under(conn: Connection, dispatched: Iterable[tuple[str, int]]) -> set[tuple[str, int]]:
    """Of (id, dispatch) pairs those whose job is `queued` under that dispatch number."""
    rows = _QUEUED_UNDER.run(conn, _PLACES.parameters(dispatched))
    return {(row.id, row.dispatch) for row in rows}


def groups_pending(conn: Connection, now: datetime) -> Mapping[str, Sequence[str]]:
    """The model groups for which `select_pending` would find a job now, by active batch; one that has none is left out."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    rows = [*_ALL_FRESH_GROUPS.run(conn, {}), *_ALL_DUE_GROUPS.run(conn, {"now": now})]
    for row in rows:
        found[row.batch_id].add(row.model_group)
    return {batch_id: sorted(groups) for batch_id, groups in found.items()}


def model_groups_waiting(conn: Connection, batch_id: str) -> Sequence[str]:
    """The model groups with a `pending` job, whether or not its time has come."""
    values = {"batch_id": batch_id}
    return sorted({*conn.scalars(_FRESH_GROUPS, values), *conn.scalars(_DEFERRED_GROUPS, values)})


def select_pending(
    conn: Connection, batch_id: str, model_group: str, limit: int, now: datetime
) -> Sequence[PendingJob]:
    """The next jobs of a batch and group, in the order they were submitted; none whose time has not come."""
    values = {"batch_id": batch_id, "model_group": model_group, "limit": limit, "now": now}
    rows = _NEXT.run(conn, values)
    return [PendingJob(*tuple(row)) for row in sorted(rows, key=lambda row: row.seq)[:limit]]


def states_of(conn: Connection, ids: Collection[str]) -> dict[str, JobState]:
    """How these jobs stand; one that is not there any more is left out."""
    found = select(job.c.id, job.c.state).where(_IDS.among(conn.dialect.name, job.c.id))
    return {
        row.id: JobState(row.state) for row in conn.execute(found, _IDS.parameters((each,) for each in ids))
    }


def queue(conn: Connection, ids: Collection[str], now: datetime) -> list[QueuedJob]:
    """`pending` becomes `queued` with the next dispatch number; only what this returns may be published.

    Left out are jobs that are not `pending` any more or whose batch is not `active`. Commit, then publish.
    """
    lock_batches_of(conn, ids)
    wanted = _IDS.parameters(((each,) for each in ids), now=now)
    rows = _QUEUE.run(conn, wanted).all()
    batches = batches_of(conn, {row.batch_id for row in rows})
    place = {job_id: place for place, job_id in enumerate(ids)}
    return [
        QueuedJob(
            job_id=row.id,
            dispatch=row.dispatch,
            batch=batches[row.batch_id].name,
            model=batches[row.batch_id].model or row.model_group,
            attempts=row.attempts,
        )
        for row in sorted(rows, key=lambda row: place[row.id])
    ]


def unqueue(conn: Connection, dispatched: Iterable[tuple[str, int]], now: datetime) -> set[str]:
    """`queued` under that dispatch number goes back to `pending`; the ids that did. For (id, dispatch) pairs.

    In a batch that is being canceled such a job is canceled instead.
    """
    back = [Deferral(job_id=job_id, dispatch=number, not_before=None) for job_id, number in dispatched]
    return set(defer(conn, back, now))


def lost_queued(
    conn: Connection, present: Collection[str], before: datetime, after: datetime | None = None
) -> Sequence[tuple[str, int]]:
    """(id, dispatch) of jobs queued before a moment whose id is not in `present`; give them to `unqueue`.

    Also of those queued `after` another, which is still to come: since then the clock was set back.
    """
    is_old = job.c.queued_at < before
    if after is not None:
        is_old = or_(is_old, job.c.queued_at > after)
    rows = conn.execute(select(job.c.id, job.c.dispatch).where(text(QUEUED), is_old))
    known = frozenset(present)
    return sorted((row.id, row.dispatch) for row in rows if row.id not in known)


_IDS = Rowset(job.c.id)
_PLACES = Rowset(job.c.id, job.c.dispatch)


def _queued_under(dialect: str) -> Select[tuple[str, int]]:
    given = _PLACES.on(dialect)
    return select(job.c.id, job.c.dispatch).where(
        job.c.id == given.c.id, job.c.dispatch == given.c.dispatch, is_in(JobState.QUEUED)
    )


def _queue(dialect: str) -> ReturningUpdate[Any]:
    given = _IDS.on(dialect)
    return (
        update(job)
        .where(job.c.id == given.c.id, is_in(JobState.PENDING), BATCH_IS_ACTIVE)
        .values(
            state=JobState.QUEUED,
            dispatch=job.c.dispatch + 1,
            not_before=None,
            queued_at=bindparam("now", type_=UTCDateTime()),
            changed_at=bindparam("now", type_=UTCDateTime()),
        )
        .returning(job.c.id, job.c.batch_id, job.c.dispatch, job.c.attempts, job.c.model_group)
    )


_QUEUED_UNDER = Prepared(_queued_under)
_QUEUE = Prepared(_queue)
_PENDING = (
    select(job.c.id, job.c.seq, job.c.estimated_input_tokens, job.c.estimated_output_tokens)
    .where(job.c.batch_id == bindparam("batch_id"), job.c.model_group == bindparam("model_group"))
    .limit(bindparam("limit"))
)
_FRESH = _PENDING.where(text(PENDING_FRESH)).order_by(job.c.seq)
# In the order of their index: however many are due, no more are read than are wanted.
_DUE = _PENDING.where(
    text(PENDING_DEFERRED), job.c.not_before <= bindparam("now", type_=UTCDateTime())
).order_by(job.c.not_before)
_NEXT = Prepared(lambda _: union_all(*(select(each.subquery()) for each in (_DUE, _FRESH))))


# From one model group to the next: one look into the index for each, however many jobs wait.
_GROUPS = """
    WITH RECURSIVE step(model_group) AS (
        SELECT min(model_group) FROM job WHERE batch_id = :batch_id AND {predicate}
        UNION ALL
        SELECT (
            SELECT min(model_group) FROM job
            WHERE batch_id = :batch_id AND {predicate} AND model_group > step.model_group
        )
        FROM step WHERE step.model_group IS NOT NULL
    )
    SELECT step.model_group FROM step WHERE step.model_group IS NOT NULL
"""
_FRESH_GROUPS = text(_GROUPS.format(predicate=PENDING_FRESH))
_DEFERRED_GROUPS = text(_GROUPS.format(predicate=PENDING_DEFERRED))
# The same from each active batch on.
_ALL_GROUPS = """
    WITH RECURSIVE step(batch_id, model_group) AS (
        SELECT id, (SELECT min(model_group) FROM job WHERE batch_id = batch.id AND {predicate})
        FROM batch WHERE {served} AND batch.state = 'active'
        UNION ALL
        SELECT step.batch_id, (
            SELECT min(model_group) FROM job
            WHERE job.batch_id = step.batch_id AND {predicate} AND job.model_group > step.model_group
        )
        FROM step WHERE step.model_group IS NOT NULL
    )
    SELECT step.batch_id, step.model_group FROM step WHERE step.model_group IS NOT NULL
"""
_IS_DUE = """
    AND EXISTS (
        SELECT 1 FROM job
        WHERE job.batch_id = step.batch_id AND {predicate}
        AND job.model_group = step.model_group AND not_before <= :now
    )
"""
_ALL_FRESH_GROUPS = Prepared(lambda _: text(_ALL_GROUPS.format(predicate=PENDING_FRESH, served=SERVED)))
_ALL_DUE_GROUPS = Prepared(
    lambda _: text((_ALL_GROUPS + _IS_DUE).format(predicate=PENDING_DEFERRED, served=SERVED)).bindparams(
        bindparam("now", type_=UTCDateTime())
    )
)
