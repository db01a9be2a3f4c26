"""Runs of schedules: one row for each due time, and what became of it.

The row is what decides: it is inserted once, whoever looks and however often, and only the one who takes it may submit.
A take lasts for a while, so that what a killed process left is taken up by another; `tries` says whose turn it is, and
who had a former one changes nothing any more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, Update, case, delete, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from promptmill.recurrence import Due, RunState, ScheduleState
from promptmill.states import BatchState
from promptmill.store import control
from promptmill.store.tables import RUN_OPEN, batch, schedule, schedule_run

KEPT = 1_000
"""Due times of a schedule that are remembered, besides those whose batches go on."""
_OPEN = text(f"schedule_run.{RUN_OPEN}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """One due time and what became of it; the figures of its batch, where there is one.

    `try_after` is when somebody may take it up; None when nothing is left to do. `batch_name` is None too when the
    batch was removed.
    """

    schedule_id: str
    due_at: datetime
    state: RunState
    manual: bool
    reason: str | None
    tries: int
    try_after: datetime | None
    batch_id: str | None
    created_at: datetime
    ended_at: datetime | None
    batch_name: str | None = None
    batch_state: BatchState | None = None
    total: int | None = None
    succeeded: int | None = None
    cost_nanos: int | None = None
    unpriced_attempts: int | None = None


def record(conn: Connection, schedule_id: str, due_: Due, now: datetime, *, manual: bool = False) -> bool:
    """Insert the run of a due time; False when it is there already."""
    skipped = due_.skipped is not None
    values = {
        "schedule_id": schedule_id,
        "due_at": due_.at,
        "state": RunState.SKIPPED if skipped else RunState.WAITING,
        "manual": manual,
        "reason": due_.skipped or due_.note,
        "tries": 0,
        "try_after": None if skipped else now,
        "created_at": now,
        "ended_at": now if skipped else None,
    }
    into = sqlite_insert if conn.dialect.name == "sqlite" else postgres_insert
    new = into(schedule_run).values(values).on_conflict_do_nothing().returning(schedule_run.c.due_at)
    return conn.execute(new).first() is not None


def forget_old(conn: Connection, schedule_id: str, kept: int = KEPT) -> int:
    """Delete what is known of due times long ago, if it is over; of how many."""
    of = schedule_run.c
    newest = select(of.due_at).where(of.schedule_id == schedule_id).order_by(of.due_at.desc())
    oldest_kept = conn.scalar(newest.offset(kept - 1).limit(1))
    if oldest_kept is None:
        return 0
    goes_on = select(batch.c.id).where(batch.c.id == of.batch_id, batch.c.state != BatchState.ENDED).exists()
    over = delete(schedule_run).where(of.schedule_id == schedule_id, of.due_at < oldest_kept)
    return conn.execute(over.where(of.try_after.is_(None), ~goes_on)).rowcount


def still_goes_on(conn: Connection, schedule_id: str) -> datetime | None:
    """The due time of a run that is still to be submitted, or whose batch has not ended; None when there is none."""
    of = schedule_run.c
    dues = select(of.due_at).where(of.schedule_id == schedule_id).order_by(of.due_at).limit(1)
    submitted = dues.join(batch, batch.c.id == of.batch_id).where(batch.c.state != BatchState.ENDED)
    found = [conn.scalar(dues.where(_OPEN)), conn.scalar(submitted)]
    return min((each for each in found if each is not None), default=None)


def open_runs(conn: Connection, endpoint: str, now: datetime) -> Sequence[RunRow]:
    """The runs of an endpoint's schedules that may be taken up now, the oldest first.

    Of a paused schedule only those that a person asked for.
    """
    query = select(schedule_run).join(schedule).where(
        _OPEN,
        schedule.c.endpoint == endpoint,
        schedule_run.c.try_after <= now,
        or_(schedule.c.state == ScheduleState.ACTIVE, schedule_run.c.manual),
    )  # fmt: skip
    return [_run_row(row) for row in conn.execute(query.order_by(schedule_run.c.due_at)).mappings()]


def idle(conn: Connection, schedule_id: str, now: datetime) -> Sequence[RunRow]:
    """The runs of a schedule that are open while nobody is at them, without those that a person asked for."""
    query = select(schedule_run).where(schedule_run.c.schedule_id == schedule_id, *_is_idle(now))
    return [_run_row(row) for row in conn.execute(query.order_by(schedule_run.c.due_at)).mappings()]


def take(conn: Connection, run: RunRow, until: datetime, now: datetime) -> RunRow | None:
    """Take up a run: nobody else does until then. None when somebody was quicker, or the schedule is paused or gone.

    While it is taken it is waiting; what a former try said is no more.
    """
    wanted = select(schedule.c.id).where(
        schedule.c.id == run.schedule_id,
        or_(schedule.c.state == ScheduleState.ACTIVE, schedule_run.c.manual),
    )
    reason = None if run.state is RunState.FAILED else run.reason
    taken = replace(run, state=RunState.WAITING, tries=run.tries + 1, try_after=until, reason=reason)
    values = {name: getattr(taken, name) for name in _TAKEN}
    changed = conn.execute(_mine(run).where(schedule_run.c.try_after <= now, wanted.exists()).values(values))
    return taken if changed.rowcount == 1 else None


def give_back(conn: Connection, former: RunRow, taken: RunRow, now: datetime) -> None:
    """As if it had not been taken; somebody else may do so now."""
    values = {name: getattr(former, name) for name in _TAKEN}
    conn.execute(_mine(taken).values({**values, "try_after": now}))


def keep(conn: Connection, run: RunRow, until: datetime) -> bool:
    """Still at work on a run that was taken; False when somebody else is."""
    return conn.execute(_mine(run).values(try_after=until)).rowcount == 1


def submitted(conn: Connection, run: RunRow, batch_id: str, now: datetime) -> None:
    """The run has its batch, and is done."""
    values = {"state": RunState.SUBMITTED, "batch_id": batch_id, "try_after": None, "ended_at": now}
    conn.execute(_mine(run).values(values))


def failed(conn: Connection, run: RunRow, reason: str, try_after: datetime | None, now: datetime) -> bool:
    """It came to nothing; it is tried again later, or, when None, no more. False when somebody else has it."""
    ended_at = None if try_after else now
    values = {"state": RunState.FAILED, "reason": reason, "try_after": try_after, "ended_at": ended_at}
    return conn.execute(_mine(run).values(values)).rowcount == 1


def close_idle(
    conn: Connection, schedule_id: str, why: str, now: datetime, only: RunRow | None = None
) -> Sequence[datetime]:
    """Try no more what is open while nobody is at it, or only one such run; the due times.

    What a person asked for stays open. What had failed has failed for good, with its reason; the rest is skipped.
    """
    has_failed = schedule_run.c.state == RunState.FAILED
    which = update(schedule_run).where(schedule_run.c.schedule_id == schedule_id, *_is_idle(now))
    if only is not None:
        which = which.where(schedule_run.c.due_at == only.due_at)
    closed = which.values(
        state=case((has_failed, RunState.FAILED), else_=RunState.SKIPPED),
        reason=case((has_failed, schedule_run.c.reason), else_=why),
        try_after=None,
        ended_at=now,
    )
    return conn.scalars(closed.returning(schedule_run.c.due_at)).all()


def cancel_half(conn: Connection, tags: Mapping[str, str], now: datetime) -> str | None:
    """Cancel the batch with these tags that was never whole, and give its name away; its id, or None.

    Nothing of it was asked. Who else is still filling it cannot go on.
    """
    query = select(batch.c.id, batch.c.name, batch.c.tags).where(batch.c.state == BatchState.ADMITTING)
    for each in conn.execute(query):
        if tags.items() <= each.tags.items():
            name = f"{each.name}-cut-{each.id[-8:]}"
            conn.execute(update(batch).where(batch.c.id == each.id).values(name=name, notify_url=None))
            control.cancel(conn, each.id, now)
            return str(each.id)
    return None


def run_at(conn: Connection, schedule_id: str, due_at: datetime) -> RunRow | None:
    """The run of a due time; None where there is none."""
    query = select(schedule_run).where(
        schedule_run.c.schedule_id == schedule_id, schedule_run.c.due_at == due_at
    )
    row = conn.execute(query).mappings().first()
    return None if row is None else _run_row(row)


def runs_of(conn: Connection, schedule_id: str, limit: int = 3) -> Sequence[RunRow]:
    """The last runs of a schedule with their batches, the newest first."""
    query = (
        select(
            schedule_run,
            batch.c.name.label("batch_name"),
            batch.c.state.label("batch_state"),
            batch.c.total,
            batch.c.succeeded,
            batch.c.cost_nanos,
            batch.c.unpriced_attempts,
        )
        .select_from(schedule_run.outerjoin(batch, batch.c.id == schedule_run.c.batch_id))
        .where(schedule_run.c.schedule_id == schedule_id)
        .order_by(schedule_run.c.due_at.desc())
        .limit(limit)
    )
    return [_run_row(row) for row in conn.execute(query).mappings()]


_TAKEN = ("state", "reason", "tries", "try_after")


def _is_idle(now: datetime) -> tuple[Any, ...]:
    """Not by a person's wish, and either failed and to be tried again, or waiting and taken by nobody."""
    of = schedule_run.c
    return _OPEN, ~of.manual, or_(of.state == RunState.FAILED, of.try_after <= now)


def _mine(run: RunRow) -> Update:
    """Only while it is open, and in this try: who was too slow changes nothing."""
    of = schedule_run.c
    return update(schedule_run).where(
        of.schedule_id == run.schedule_id, of.due_at == run.due_at, of.tries == run.tries, text(RUN_OPEN)
    )


def _run_row(row: RowMapping) -> RunRow:
    values: dict[str, Any] = {**row, "state": RunState(row["state"])}
    if values.get("batch_state") is not None:
        values["batch_state"] = BatchState(values["batch_state"])
    return RunRow(**values)
