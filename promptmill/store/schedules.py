"""Schedules and their runs: what is submitted again and again, and one row for each due time.

The row of a due time is what decides: it is inserted once, whoever looks and however often, and only the one who takes
it may submit. A take lasts for a while, so that what a killed process left is taken up by another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, Update, and_, delete, func, insert, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.exc import IntegrityError

from promptmill.errors import InvalidInput, NotFound
from promptmill.ids import new_id
from promptmill.recurrence import Due, Missed, Overlap, RunState, ScheduleState, Timetable
from promptmill.states import BatchState
from promptmill.store.columns import storable
from promptmill.store.engines import is_duplicate
from promptmill.store.inserting import all_or_none
from promptmill.store.tables import RUN_OPEN, SCHEDULED, batch, schedule, schedule_run


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSchedule:
    """A schedule to be made.

    Attributes:
        endpoint, simulated: where Claude is for its batches; workers of another endpoint leave it alone.
        what: source and options of the submission, for the callers of the store alone.
    """

    name: str
    timetable: Timetable
    missed: Missed
    overlap: Overlap
    endpoint: str
    simulated: bool
    next_due: datetime | None
    what: Mapping[str, Any]
    id: str = field(default_factory=lambda: new_id("schedule"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleRow:
    """A schedule as it stands; `next_due` is the first due time that has no run yet."""

    id: str
    name: str
    state: ScheduleState
    cron: str | None
    every_s: int | None
    timezone: str
    missed: Missed
    overlap: Overlap
    endpoint: str
    simulated: bool
    starts_at: datetime
    next_due: datetime | None
    created_at: datetime
    changed_at: datetime
    what: Mapping[str, Any]

    @property
    def timetable(self) -> Timetable:
        """Its due times."""
        return Timetable(
            cron=self.cron, every_s=self.every_s, timezone=self.timezone, starts_at=self.starts_at
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Waking:
    """When to wake a worker for an active schedule; nothing of what it submits, which beat need not be able to read."""

    name: str
    timetable: Timetable
    next_due: datetime | None
    changed_at: datetime


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


def add(conn: Connection, new: NewSchedule, now: datetime) -> ScheduleRow:
    """Insert a schedule.

    Raises:
        InvalidInput: the name is taken.
    """
    times = new.timetable
    values = {each.name: getattr(new, each.name) for each in fields(new) if each.name != "timetable"}
    values |= {"cron": times.cron, "every_s": times.every_s, "timezone": times.timezone}
    values |= {"starts_at": times.starts_at, "state": ScheduleState.ACTIVE}
    values |= {"created_at": now, "changed_at": now}
    try:
        with all_or_none(conn):
            conn.execute(insert(schedule).values(values))
    except IntegrityError as error:
        if not is_duplicate(error):
            raise
        raise InvalidInput(f"there is a schedule named {new.name!r} already", field="name") from None
    return find(conn, new.id)


def find(conn: Connection, name_or_id: str) -> ScheduleRow:
    """The schedule with that id or name.

    Raises:
        NotFound: there is none; the message names those there are.
    """
    wanted = storable(name_or_id)
    query = select(schedule).where(or_(schedule.c.id == wanted, schedule.c.name == wanted))
    row = conn.execute(query.order_by(schedule.c.id != wanted)).mappings().first()
    if row is None:
        names = ", ".join(each.name for each in list_all(conn))
        raise NotFound(
            f"there is no schedule {name_or_id!r}; "
            + (f"there are: {names}" if names else "there is none at all yet")
        )
    return _schedule_row(row)


def list_all(conn: Connection) -> Sequence[ScheduleRow]:
    """All schedules by name."""
    return [_schedule_row(row) for row in conn.execute(select(schedule).order_by(schedule.c.name)).mappings()]


def wakings(conn: Connection) -> Sequence[Waking]:
    """When to wake whom: of every active schedule."""
    of = schedule.c
    query = select(of.name, of.cron, of.every_s, of.timezone, of.starts_at, of.next_due, of.changed_at)
    return [
        Waking(
            name=row.name,
            timetable=Timetable(
                cron=row.cron, every_s=row.every_s, timezone=row.timezone, starts_at=row.starts_at
            ),
            next_due=row.next_due,
            changed_at=row.changed_at,
        )
        for row in conn.execute(query.where(text(SCHEDULED)))
    ]


def remove(conn: Connection, schedule_id: str) -> None:
    """Delete a schedule and the record of its runs; their batches stay."""
    conn.execute(delete(schedule).where(schedule.c.id == schedule_id))


def set_state(
    conn: Connection, schedule_id: str, state: ScheduleState, next_due: datetime | None, now: datetime
) -> None:
    """Pause a schedule, or let it go on from a due time."""
    conn.execute(_of(schedule_id).values(state=state, next_due=next_due, changed_at=now))


def due(conn: Connection, endpoint: str, now: datetime) -> Sequence[str]:
    """The ids of the schedules of an endpoint that have a due time without a run."""
    is_due = text(SCHEDULED), schedule.c.endpoint == endpoint, schedule.c.next_due <= now
    return conn.scalars(select(schedule.c.id).where(*is_due).order_by(schedule.c.next_due)).all()


def lock(conn: Connection, schedule_id: str) -> ScheduleRow | None:
    """Hold a schedule until the transaction ends; None when it was removed."""
    query = select(schedule).where(schedule.c.id == schedule_id).with_for_update()
    row = conn.execute(query).mappings().first()
    return None if row is None else _schedule_row(row)


def advance(conn: Connection, schedule_id: str, next_due: datetime | None) -> None:
    """The due times before this one are recorded."""
    conn.execute(_of(schedule_id).values(next_due=next_due))


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


def still_goes_on(conn: Connection, schedule_id: str) -> datetime | None:
    """The due time of a run that is still to be submitted, or whose batch has not ended; None when there is none."""
    runs = schedule_run.outerjoin(batch, batch.c.id == schedule_run.c.batch_id)
    goes_on = or_(
        text(f"schedule_run.{RUN_OPEN}"),
        and_(schedule_run.c.state == RunState.SUBMITTED, batch.c.state != BatchState.ENDED),
    )
    query = select(schedule_run.c.due_at).select_from(runs)
    query = query.where(schedule_run.c.schedule_id == schedule_id, goes_on)
    return conn.scalars(query.order_by(schedule_run.c.due_at).limit(1)).first()


def open_runs(conn: Connection, endpoint: str, now: datetime) -> Sequence[RunRow]:
    """The runs of an endpoint's schedules that may be taken up now, the oldest first.

    Of a paused schedule only those that a person asked for.
    """
    may_run = or_(schedule.c.state == ScheduleState.ACTIVE, schedule_run.c.manual)
    query = select(schedule_run).join(schedule).where(
        text(f"schedule_run.{RUN_OPEN}"),
        schedule.c.endpoint == endpoint,
        schedule_run.c.try_after <= now,
        may_run,
    )  # fmt: skip
    return [_run_row(row) for row in conn.execute(query.order_by(schedule_run.c.due_at)).mappings()]


def take(conn: Connection, run: RunRow, until: datetime, now: datetime) -> bool:
    """Take up a run: nobody else does until then; False when somebody was quicker."""
    taken = _run(run).where(schedule_run.c.try_after <= now)
    return conn.execute(taken.values(try_after=until, tries=schedule_run.c.tries + 1)).rowcount == 1


def keep(conn: Connection, run: RunRow, until: datetime) -> None:
    """Still at work on a run that was taken."""
    conn.execute(_run(run).values(try_after=until))


def submitted(conn: Connection, run: RunRow, batch_id: str, now: datetime) -> None:
    """The run has its batch, and is done."""
    conn.execute(
        _run(run).values(
            state=RunState.SUBMITTED,
            batch_id=batch_id,
            # What is known of a first try is no failure any more; that due times were missed stays true.
            reason=schedule_run.c.reason if run.state is RunState.WAITING else None,
            try_after=None,
            ended_at=now,
        )
    )


def failed(conn: Connection, run: RunRow, reason: str, try_after: datetime | None, now: datetime) -> None:
    """It came to nothing; it is tried again later, or, when None, no more."""
    conn.execute(
        _run(run).values(
            state=RunState.FAILED,
            reason=reason,
            try_after=try_after,
            ended_at=None if try_after else now,
        )
    )


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


def count_active(conn: Connection) -> int:
    """How many schedules are not paused."""
    return conn.execute(select(func.count()).select_from(schedule).where(text(SCHEDULED))).scalar_one()


def _of(schedule_id: str) -> Update:
    return update(schedule).where(schedule.c.id == schedule_id)


def _run(run: RunRow) -> Update:
    """Only while it is open: who was too slow changes nothing."""
    return update(schedule_run).where(
        schedule_run.c.schedule_id == run.schedule_id, schedule_run.c.due_at == run.due_at, text(RUN_OPEN)
    )


def _schedule_row(row: RowMapping) -> ScheduleRow:
    values: dict[str, Any] = dict(row)
    for name, words in (("state", ScheduleState), ("missed", Missed), ("overlap", Overlap)):
        values[name] = words(values[name])
    return ScheduleRow(**values)


def _run_row(row: RowMapping) -> RunRow:
    values: dict[str, Any] = {**row, "state": RunState(row["state"])}
    if values.get("batch_state") is not None:
        values["batch_state"] = BatchState(values["batch_state"])
    return RunRow(**values)
