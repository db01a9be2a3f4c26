"""Figures over all batches, for metrics: sums of kept counters, and the latest calls. No job is counted one by one.

The idea: a look costs what there are batches, not what there are jobs, and reads no column behind `shared`,
which may be large.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Row, RowMapping, and_, bindparam, case, func, select, text

from promptmill.recurrence import ScheduleState
from promptmill.states import TERMINAL_JOB_STATES, BatchState, JobState, PausedBy
from promptmill.store.batches import COUNTERS, Counters
from promptmill.store.columns import UTCDateTime
from promptmill.store.tables import (
    CLOSED,
    OUT,
    SERVED,
    attempt,
    batch,
    batch_count,
    job,
    schedule,
    schedule_run,
)
from promptmill.store.tallies import OUTCOME

LATEST_CALLS: Final = 1_000
"""The calls that are looked at for how long calls take."""
LATEST_WITHIN: Final = timedelta(minutes=10)
MOST_BATCHES: Final = 50
"""Served batches that have series of their own, the newest."""
MOST_SCHEDULES: Final = 200

_OF_SERVED = (
    *("id", "name", "state", "total", "succeeded", "errored", "canceled", "expired"),
    *("cost_nanos", "budget_nanos", "paused_by"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTotals(Counters):
    """The sums of the batches of one model, real or simulated."""

    model: str
    simulated: bool


@dataclass(frozen=True, slots=True)
class Totals:
    """Everything that is kept, over all batches that are in the database.

    Attributes:
        models: by model and whether simulated.
        out: jobs that are queued, running or submitted.
        batches: how many, by state.
        failed_attempts: closed attempts that did not succeed, by outcome.
    """

    models: tuple[ModelTotals, ...]
    out: Mapping[str, int]
    batches: Mapping[str, int]
    failed_attempts: Mapping[str, int]

    @property
    def jobs(self) -> dict[JobState, int]:
        """A count for every state; `pending` is what is left."""
        found = {state: self.out.get(state, 0) for state in JobState}
        found |= {
            state: sum(getattr(each, state.value) for each in self.models) for state in TERMINAL_JOB_STATES
        }
        found[JobState.PENDING] = sum(each.total for each in self.models) - sum(found.values())
        return found


def totals(conn: Connection) -> Totals:
    """The sums as they stand."""
    return Totals(
        models=tuple(ModelTotals(**_plain(row)) for row in conn.execute(_MODELS).mappings()),
        out=dict(conn.execute(_OUT).all()),
        batches=dict(conn.execute(_STATES).all()),
        failed_attempts={
            word: int(number) for word, number in conn.execute(_OUTCOMES, {"what": OUTCOME}) if number
        },
    )


@dataclass(frozen=True, slots=True)
class ServedBatch:
    """A batch that is active, paused or being canceled.

    Attributes:
        paused_by: `person`, `budget`, `spend_cap`, `key` or `encryption`; None where it is not paused.
        jobs: a count for every state.
    """

    name: str
    paused_by: str | None
    cost_nanos: int
    budget_nanos: int | None
    jobs: Mapping[JobState, int]


def served(conn: Connection) -> list[ServedBatch]:
    """The batches that are served, the newest first; MOST_BATCHES at most."""
    rows = conn.execute(_SERVED).all()
    out: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for batch_id, state, number in conn.execute(_OUT_OF_SERVED):
        out[batch_id][state] = number
    return [
        ServedBatch(row.name, _paused_by(row), row.cost_nanos, row.budget_nanos, _jobs(row, out[row.id]))
        for row in rows
    ]


def _paused_by(row: Row[Any]) -> str | None:
    """An older version has not written down who paused a batch: it was a person then."""
    return (row.paused_by or PausedBy.PERSON) if row.state == BatchState.PAUSED else None


def _jobs(row: Row[Any], out: Mapping[str, int]) -> dict[JobState, int]:
    """Terminal states from the kept counters, what is out as it was counted; `pending` is the rest."""
    jobs = {state: out.get(state, 0) for state in JobState}
    jobs |= {state: getattr(row, state.value) for state in TERMINAL_JOB_STATES}
    jobs[JobState.PENDING] = row.total - sum(jobs.values())
    return jobs


def latest_calls(conn: Connection, now: datetime) -> dict[str, list[float]]:
    """How many seconds the calls took that ended last, by model group, in rising order.

    LATEST_CALLS at most, within LATEST_WITHIN. By their end: of those that began last, only the quick ones have ended.
    """
    found: dict[str, list[float]] = {}
    for group, opened_at, closed_at in conn.execute(_LATEST, {"since": now - LATEST_WITHIN}):
        found.setdefault(group, []).append(max(0.0, (closed_at - opened_at).total_seconds()))
    return {group: sorted(seconds) for group, seconds in sorted(found.items())}


@dataclass(frozen=True, slots=True)
class ScheduleTimes:
    """When a schedule is due next, None where it is never or paused; its last due time, and what became of it."""

    name: str
    next_due: datetime | None
    last_due: datetime | None
    last_state: str | None


def schedules(conn: Connection) -> list[ScheduleTimes]:
    """The schedules by name, MOST_SCHEDULES at most."""
    return [ScheduleTimes(*row) for row in conn.execute(_SCHEDULES)]


def _plain(row: RowMapping) -> dict[str, Any]:
    """Postgres gives a sum of 64-bit numbers as a Decimal."""
    return {name: int(value) if name in COUNTERS else value for name, value in row.items()}


_MODELS = (
    select(batch.c.model, batch.c.simulated, *(func.sum(batch.c[name]).label(name) for name in COUNTERS))
    .group_by(batch.c.model, batch.c.simulated)
    .order_by(batch.c.model, batch.c.simulated)
)
_STATES = select(batch.c.state, func.count()).group_by(batch.c.state)
_OUT = select(job.c.state, func.count()).where(text(OUT)).group_by(job.c.state)
_OUTCOMES = (
    select(batch_count.c.word, func.sum(batch_count.c.number))
    .where(batch_count.c.what == bindparam("what"))
    .group_by(batch_count.c.word)
    .order_by(batch_count.c.word)
)
_SERVED = (
    select(*(batch.c[name] for name in _OF_SERVED))
    .where(text(SERVED))
    .order_by(batch.c.created_at.desc())
    .limit(MOST_BATCHES)
)
_OUT_OF_SERVED = (
    select(job.c.batch_id, job.c.state, func.count()).where(text(OUT)).group_by(job.c.batch_id, job.c.state)
)
_LATEST = (
    select(attempt.c.model_group, attempt.c.opened_at, attempt.c.closed_at)
    .where(text(CLOSED), attempt.c.closed_at >= bindparam("since", type_=UTCDateTime()))
    .order_by(attempt.c.closed_at.desc())
    .limit(LATEST_CALLS)
)
_RUNS = schedule_run.alias()
_LAST_DUE = select(func.max(_RUNS.c.due_at)).where(_RUNS.c.schedule_id == schedule.c.id).scalar_subquery()
_SCHEDULES = (
    select(
        schedule.c.name,
        case((schedule.c.state == ScheduleState.ACTIVE, schedule.c.next_due)).label("next_due"),
        schedule_run.c.due_at,
        schedule_run.c.state,
    )
    .select_from(schedule)
    .outerjoin(
        schedule_run, and_(schedule_run.c.schedule_id == schedule.c.id, schedule_run.c.due_at == _LAST_DUE)
    )
    .order_by(schedule.c.name)
    .limit(MOST_SCHEDULES)
)
