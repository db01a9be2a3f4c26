"""Figures: what `status` and the dispatcher ask. Kept counters and partial indexes, no scan of a batch."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, bindparam, case, func, select, text

from promptmill.states import TERMINAL_JOB_STATES, JobState
from promptmill.store.batches import BatchRow, get
from promptmill.store.columns import UTCDateTime
from promptmill.store.tables import OUT, PENDING_DEFERRED, SERVED, attempt, batch, job
from promptmill.store.tallies import OUTCOME, words_of


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStatus:
    """A batch and its figures at one moment.

    Attributes:
        jobs: a count for every JobState; `batch.total` is their sum.
        failures: closed attempts that did not succeed, by kind.
        elapsed_s: seconds from the first attempt to the end or to now; 0 before the first.
    """

    batch: BatchRow
    jobs: Mapping[JobState, int]
    failures: Mapping[str, int]
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class GroupCount:
    """What is out for one model group: at the broker, in flight, and begun in the last 10 seconds."""

    queued: int = 0
    running: int = 0
    starts: int = 0


def status(conn: Connection, batch_id: str, now: datetime) -> BatchStatus:
    """The figures of one batch.

    Raises:
        NotFound: there is no such batch.
    """
    row = get(conn, batch_id)
    return BatchStatus(
        batch=row,
        jobs=_jobs(row, out_of(conn, row.id)),
        failures=words_of(conn, batch_id, OUTCOME),
        elapsed_s=_elapsed_s(row, now),
    )


def statuses(conn: Connection, rows: Sequence[BatchRow], now: datetime) -> list[BatchStatus]:
    """The figures of many batches from one question; `failures` are left out, which are asked for batch by batch."""
    out: defaultdict[str, dict[JobState, int]] = defaultdict(dict)
    for batch_id, state, number in conn.execute(_OUT_BY_BATCH):
        out[batch_id][JobState(state)] = number
    return [
        BatchStatus(batch=row, jobs=_jobs(row, out[row.id]), failures={}, elapsed_s=_elapsed_s(row, now))
        for row in rows
    ]


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a batch has come, and what it cost so far."""

    id: str
    total: int
    done: int
    cost_nanos: int


def standings(conn: Connection) -> list[Standing]:
    """Of every batch that is active, paused or being canceled, however many there are."""
    return [Standing(*row) for row in conn.execute(_STANDINGS)]


@dataclass(frozen=True, slots=True)
class Resting:
    """Jobs of a batch that rest after a failure, and when the first of them goes on."""

    jobs: int
    until: datetime


def resting(conn: Connection, batch_id: str, now: datetime) -> Resting | None:
    """What rests; None where nothing does. It counts what rests one by one, so it is for small numbers."""
    row = conn.execute(_RESTING, {"batch_id": batch_id, "now": now}).one()
    return Resting(row.jobs, row.until) if row.jobs else None


@dataclass(frozen=True, slots=True)
class Flow:
    """How many answers a batch is given, in so many seconds, of late; both 0 where that cannot be told."""

    answers: int = 0
    seconds: float = 0.0


def flow(conn: Connection, status: BatchStatus, now: datetime) -> Flow:
    """What the tries of a batch that began within the last minute tell, without a past to compare with.

    Tries are found by when they began, so the answers of the latest are still to come; as many are taken to end as
    begin, and as many of them well as of those that have ended. It looks at the newest tries only: `MOST_TRIES`, and
    twice the calls in flight.
    """
    most = MOST_TRIES + 2 * status.jobs[JobState.RUNNING]
    ours = status.batch
    since = max(now - FLOW_WITHIN, ours.resumed_at or now - FLOW_WITHIN)
    row = conn.execute(_FLOW, {"batch_id": ours.id, "since": since, "most": most}).one()
    if not row.answered:
        return Flow()
    began = row.first if row.seen == most else max(since, ours.started_at or since)
    return Flow(round(row.begun * row.answered / row.closed), (now - began).total_seconds())


def window_counts(conn: Connection, now: datetime) -> Mapping[str, GroupCount]:
    """Per model group what is queued and running over all batches, and starts of the last 10 seconds."""
    counts: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for group, state, number in conn.execute(_OUT):
        counts[group][state] = number
    for group, number in conn.execute(_STARTS, {"since": now - STARTS_WITHIN}):
        counts[group]["starts"] = number
    return {
        group: GroupCount(
            queued=found.get(JobState.QUEUED, 0),
            running=found.get(JobState.RUNNING, 0),
            starts=found.get("starts", 0),
        )
        for group, found in counts.items()
    }


def out_of(conn: Connection, batch_id: str) -> Mapping[JobState, int]:
    """How many jobs of a batch are queued, running and submitted; what is none of these is left out."""
    return {JobState(state): number for state, number in conn.execute(_OUT_OF_BATCH, {"batch_id": batch_id})}


STARTS_WITHIN = timedelta(seconds=10)
FLOW_WITHIN = timedelta(seconds=60)
MOST_TRIES = 2_000

_RESTING = select(func.count().label("jobs"), func.min(job.c.not_before).label("until")).where(
    job.c.batch_id == bindparam("batch_id"),
    text(PENDING_DEFERRED),
    job.c.not_before > bindparam("now", type_=UTCDateTime()),
    job.c.error_kind.is_not(None),
)
_OUT_OF_BATCH = (
    select(job.c.state, func.count())
    .where(job.c.batch_id == bindparam("batch_id"), text(OUT))
    .group_by(job.c.state)
)
_OUT_BY_BATCH = (
    select(job.c.batch_id, job.c.state, func.count()).where(text(OUT)).group_by(job.c.batch_id, job.c.state)
)
_STANDINGS = select(
    batch.c.id,
    batch.c.total,
    batch.c.succeeded + batch.c.errored + batch.c.canceled + batch.c.expired,
    batch.c.cost_nanos,
).where(text(SERVED))
_OUT = (
    select(job.c.model_group, job.c.state, func.count())
    .where(text(OUT))
    .group_by(job.c.model_group, job.c.state)
)
_STARTS = (
    select(attempt.c.model_group, func.count())
    .where(attempt.c.opened_at > bindparam("since", type_=UTCDateTime()))
    .group_by(attempt.c.model_group)
)

_NEWEST = (
    select(attempt.c.batch_id, attempt.c.opened_at, attempt.c.outcome)
    .where(attempt.c.opened_at >= bindparam("since", type_=UTCDateTime()))
    .order_by(attempt.c.opened_at.desc())
    .limit(bindparam("most"))
    .subquery()
)
_OURS = _NEWEST.c.batch_id == bindparam("batch_id")
_FLOW = select(
    func.count().label("seen"),
    func.min(_NEWEST.c.opened_at).label("first"),
    func.count(case((_OURS, 1))).label("begun"),
    func.count(case((_OURS & (_NEWEST.c.outcome != "open"), 1))).label("closed"),
    func.count(case((_OURS & (_NEWEST.c.outcome == "succeeded"), 1))).label("answered"),
)


def _elapsed_s(row: BatchRow, now: datetime) -> float:
    began, until = row.started_at, row.ended_at or now
    return max(0.0, (until - began).total_seconds()) if began else 0.0


def _jobs(row: BatchRow, out: Mapping[JobState, int]) -> dict[JobState, int]:
    """Terminal states from the kept counters, what is out from its index; `pending` is the rest."""
    jobs = {state: out.get(state, 0) for state in JobState}
    jobs |= {state: getattr(row, state.value) for state in TERMINAL_JOB_STATES}
    jobs[JobState.PENDING] = row.total - sum(jobs.values())
    return jobs
