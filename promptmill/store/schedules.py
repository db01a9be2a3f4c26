"""Schedules: what is submitted again and again, and up to which due time that is recorded; see `schedule_runs`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, Update, delete, func, insert, or_, select, text, update
from sqlalchemy.exc import IntegrityError

from promptmill.errors import InvalidInput, NotFound
from promptmill.ids import new_id
from promptmill.recurrence import Missed, Overlap, ScheduleState, Timetable
from promptmill.store.columns import storable
from promptmill.store.engines import is_duplicate
from promptmill.store.inserting import all_or_none
from promptmill.store.tables import SCHEDULED, schedule


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
        raise InvalidInput(f"there is a schedule named {new.name!r} already", field="schedule") from None
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


def find_by_id(conn: Connection, schedule_id: str) -> ScheduleRow | None:
    """The schedule with that id; None when it was removed."""
    row = conn.execute(select(schedule).where(schedule.c.id == schedule_id)).mappings().first()
    return None if row is None else _schedule_row(row)


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


def count_active(conn: Connection) -> int:
    """How many schedules are not paused."""
    return conn.execute(select(func.count()).select_from(schedule).where(text(SCHEDULED))).scalar_one()


def _of(schedule_id: str) -> Update:
    return update(schedule).where(schedule.c.id == schedule_id)


def _schedule_row(row: RowMapping) -> ScheduleRow:
    values: dict[str, Any] = dict(row)
    for name, words in (("state", ScheduleState), ("missed", Missed), ("overlap", Overlap)):
        values[name] = words(values[name])
    return ScheduleRow(**values)
