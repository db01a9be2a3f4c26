"""Control: how a batch stands is changed, each time in one guarded transaction.

The one idea: whoever changes it locks its row first and looks at its state then, so of two who want different
things the second finds what the first has made of it.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, bindparam, select, text, update

from promptmill.errors import InvalidTransition, NotFound
from promptmill.states import BatchState, JobState, PausedBy, check_batch_change
from promptmill.store.batches import BatchRow, get
from promptmill.store.columns import UTCDateTime
from promptmill.store.tables import NOTICE_AGAIN, SERVED, batch
from promptmill.store.tallies import Tallies, Tally, add
from promptmill.store.waiting import call_back, end_waiting


def seal(conn: Connection, batch_id: str, now: datetime) -> BatchRow:
    """The batch is whole: `admitting` becomes `active`; without an open job it ends at once.

    Raises:
        InvalidTransition: it is not `admitting`.
        NotFound: there is no such batch.
    """
    _change(conn, batch_id, BatchState.ACTIVE, only_from=BatchState.ADMITTING, sealed_at=now)
    return _settled(conn, batch_id, Tally(), now)


def lock(conn: Connection, batch_id: str) -> BatchState:
    """Hold the batch until the transaction ends, against everybody who changes it or its jobs; its state.

    Raises:
        NotFound: there is no such batch.
    """
    query = select(batch.c.state).where(batch.c.id == batch_id).with_for_update(key_share=True)
    row = conn.execute(query).first()
    if row is None:
        raise NotFound(f"there is no batch {batch_id}")
    return BatchState(row.state)


def pause(
    conn: Connection,
    batch_id: str,
    reason: str,
    now: datetime,
    *,
    by: PausedBy = PausedBy.PERSON,
    resume_at: datetime | None = None,
) -> BatchRow:
    """Begin no further job; `queued` jobs go back to `pending`, running ones finish.

    `by` is who or what pauses it, `reason` says it to people; from `resume_at` on it may go on by itself, and
    with None a person must say so. A person may also pause what something else has paused: then it waits for them.

    Raises:
        InvalidTransition: it is not `active`.
        NotFound: there is no such batch.
    """
    if by is PausedBy.PERSON and _taken_over(conn, batch_id, reason):
        return get(conn, batch_id)
    _change(conn, batch_id, BatchState.PAUSED, reason=reason, paused_by=by, resume_at=resume_at)
    call_back(conn, batch_id, now)
    return get(conn, batch_id)


def hold(
    conn: Connection,
    batch_id: str,
    reason: str,
    now: datetime,
    *,
    by: PausedBy,
    resume_at: datetime | None = None,
    since: datetime | None = None,
) -> bool:
    """Pause an `active` batch because of what a worker met; True when this call did it.

    Many jobs meet the same spend cap at once, so a batch that is not active is left as it is; so is one that went
    on after the worker met it, at `since`.
    """
    if lock(conn, batch_id) != BatchState.ACTIVE:
        return False
    if since is not None and (went_on := get(conn, batch_id).resumed_at) is not None and went_on >= since:
        return False
    pause(conn, batch_id, reason, now, by=by, resume_at=resume_at)
    return True


def resume(conn: Connection, batch_id: str, now: datetime) -> BatchRow:
    """`paused` becomes `active`.

    Raises:
        InvalidTransition: it is not `paused`.
        NotFound: there is no such batch.
    """
    _change(conn, batch_id, BatchState.ACTIVE, only_from=BatchState.PAUSED, **_NOT_PAUSED, resumed_at=now)
    return get(conn, batch_id)


def resume_due(conn: Connection, now: datetime) -> Sequence[str]:
    """What was paused until a moment that has come goes on; the ids. To be called again and again."""
    due = conn.scalars(_DUE, {"now": now}).all()
    if due:
        conn.execute(
            update(batch)
            .where(batch.c.id.in_(due))
            .values(state=BatchState.ACTIVE, **_NOT_PAUSED, resumed_at=now)
        )
    return due


def held(
    conn: Connection, by: PausedBy, endpoint: str, reasons: Collection[str] | None = None
) -> Sequence[str]:
    """What `by` has paused at an endpoint, for whatever reason or for one of these; the ids."""
    return conn.scalars(_held(reasons), {"by": by, "endpoint": endpoint}).all()


def resume_held(
    conn: Connection, by: PausedBy, endpoint: str, reasons: Collection[str] | None = None
) -> Sequence[str]:
    """All of that goes on, because its reason is gone; the ids.

    It does not count as having gone on by a person's word: what rests at a spend limit still does.
    """
    found = conn.scalars(
        _held(reasons).with_for_update(key_share=True), {"by": by, "endpoint": endpoint}
    ).all()
    if found:
        conn.execute(
            update(batch).where(batch.c.id.in_(found)).values(state=BatchState.ACTIVE, **_NOT_PAUSED)
        )
    return found


def cancel(conn: Connection, batch_id: str, now: datetime) -> BatchRow:
    """Cancel what has not begun; running jobs finish and are recorded, then the batch ends.

    Nothing of it begins from now on, and it takes no further job: one that is not whole yet is never sealed (see
    `BatchRow.was_cut`). A batch of more than MOST_AT_ONCE waiting jobs is canceled job by job in the calls of
    `jobs.expire_overdue` that follow.

    Raises:
        InvalidTransition: it is canceled or ended already.
        NotFound: there is no such batch.
    """
    _change(conn, batch_id, BatchState.CANCELING, **_NOT_PAUSED)
    return _settled(conn, batch_id, end_waiting(conn, batch_id, JobState.CANCELED, now), now)


_NOT_PAUSED: dict[str, Any] = {"reason": None, "paused_by": None, "resume_at": None, **NOTICE_AGAIN}
_DUE = (
    select(batch.c.id)
    .where(text(SERVED), batch.c.state == BatchState.PAUSED)
    .where(batch.c.resume_at <= bindparam("now", type_=UTCDateTime()))
    .order_by(batch.c.id)
    # One that is being written to is left to the next call.
    .with_for_update(key_share=True, skip_locked=True)
)
_HELD = (
    select(batch.c.id)
    .where(text(SERVED), batch.c.state == BatchState.PAUSED)
    .where(batch.c.paused_by == bindparam("by"), batch.c.endpoint == bindparam("endpoint"))
    .order_by(batch.c.id)
)


def _held(reasons: Collection[str] | None) -> Select[str]:
    return _HELD if reasons is None else _HELD.where(batch.c.reason.in_(reasons))


def _change(
    conn: Connection, batch_id: str, target: BatchState, *, only_from: BatchState | None = None, **values: Any
) -> None:
    """Lock the batch and change its state, or raise InvalidTransition."""
    current = lock(conn, batch_id)
    if only_from is not None and current != only_from:
        raise InvalidTransition(f"the batch is {current}, not {only_from}")
    check_batch_change(current, target)
    conn.execute(update(batch).where(batch.c.id == batch_id).values(state=target, **values))


def _taken_over(conn: Connection, batch_id: str, reason: str) -> bool:
    """What was paused by something else is now paused by a person; False where it is not so paused."""
    lock(conn, batch_id)
    others = (batch.c.state == BatchState.PAUSED, batch.c.paused_by != PausedBy.PERSON)
    values = {"reason": reason, "paused_by": PausedBy.PERSON, "resume_at": None}
    return bool(conn.execute(update(batch).where(batch.c.id == batch_id, *others).values(values)).rowcount)


def _settled(conn: Connection, batch_id: str, tally: Tally, now: datetime) -> BatchRow:
    """Count, and end the batch if nothing is left to do."""
    tallies = Tallies()
    tallies[batch_id] = tally
    add(conn, tallies, now)
    return get(conn, batch_id)
