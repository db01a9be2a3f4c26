"""Worker processes: one row each, kept fresh; a process lives while its row is.

Pass the database's time (`database_now`) as `now`, because the clocks of machines differ.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import cache

from sqlalchemy import (
    ColumnElement,
    Connection,
    TextClause,
    Update,
    and_,
    bindparam,
    func,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from promptmill.retries import GiveUp, Retry
from promptmill.states import JobState
from promptmill.store.columns import UTCDateTime
from promptmill.store.guards import PENDING_OR_CANCELED, ended, is_in
from promptmill.store.ledger import LOST, OPEN, ORPHANED, ClosedAttempt, close
from promptmill.store.rowsets import Rowset
from promptmill.store.tables import CLOSED, NO_FAILURE, RUNNING, attempt, job, worker
from promptmill.store.tallies import ENDED, Tallies, add, lock_batches_of

FRESH_FOR = timedelta(seconds=10)

LOST_MESSAGE = (
    "the worker process ended, or was cut off, during the call; nobody can know whether it was billed"
)

ORPHANED_MESSAGE = (
    "the worker process lives and knew nothing of this call any more; nobody can know whether it was billed"
)

AfterLoss = Callable[[int], Retry | GiveUp]
"""What follows when the process of a job is lost for the nth time; see `retries.after_loss`."""


def again_at_once(_losses: int) -> Retry | GiveUp:
    """However often: back to `pending`."""
    return Retry(after=0.0, counted=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewWorker:
    """A worker process that has come up; `slots` is how many calls it may have in flight."""

    id: str
    host: str
    pid: int
    version: str
    endpoint: str | None
    slots: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRow:
    """A worker process as it was last seen; `running` is its calls in flight."""

    id: str
    host: str
    pid: int
    version: str
    endpoint: str | None
    slots: int
    running: int
    started_at: datetime
    seen_at: datetime
    stopped_at: datetime | None


def register(conn: Connection, new: NewWorker, now: datetime) -> None:
    """A process is up; done again under the same id it is up again."""
    values = {**asdict(new), "running": 0, "started_at": now, "seen_at": now, "stopped_at": None}
    insert = sqlite_insert if conn.dialect.name == "sqlite" else postgres_insert
    conn.execute(
        insert(worker).values(values).on_conflict_do_update(index_elements=[worker.c.id], set_=values)
    )


def beat(conn: Connection, worker_id: str, running: int, now: datetime) -> bool:
    """Still alive; False when the row is gone or stopped and the process must register again."""
    return conn.execute(_of(worker_id).values(seen_at=now, running=running)).rowcount == 1


def leave(conn: Connection, worker_id: str, now: datetime) -> None:
    """The process ends; what it still runs is taken back at the next `reap`."""
    conn.execute(_of(worker_id).values(stopped_at=now, running=0))


def live(conn: Connection, now: datetime, fresh_for: timedelta = FRESH_FOR) -> Sequence[WorkerRow]:
    """The processes seen within `fresh_for`, oldest first."""
    rows = conn.execute(
        select(worker).where(_is_alive(now, fresh_for)).order_by(worker.c.started_at, worker.c.id)
    )
    return [WorkerRow(**row) for row in rows.mappings()]


def count_live(conn: Connection, now: datetime) -> int:
    """How many processes are alive; it asks for nothing that tables of an older version do not have."""
    alive = select(func.count()).select_from(worker).where(_is_alive(now, FRESH_FOR))
    return conn.execute(alive).scalar_one()


def died(conn: Connection, now: datetime, fresh_for: timedelta, since: datetime) -> Mapping[str, datetime]:
    """The processes that ended without a word after `since`: their ids, and when each was seen last."""
    query = select(worker.c.id, worker.c.seen_at).where(
        worker.c.stopped_at.is_(None), worker.c.seen_at <= now - fresh_for, worker.c.seen_at > since
    )
    return {row.id: row.seen_at for row in conn.execute(query)}


def closed_by(conn: Connection, between: Mapping[str, tuple[datetime, datetime]], most: int) -> set[str]:
    """The jobs of the newest attempts, `most` a process, of each of these processes that were closed between two moments.

    Both ends are needed: what others have closed since a process died is walked through too, and may be a million.
    """
    newest = select(attempt.c.job_id).order_by(attempt.c.closed_at.desc()).limit(most)
    found: set[str] = set()
    for worker_id, (first, last) in between.items():
        theirs = text(CLOSED), attempt.c.worker_id == worker_id, attempt.c.closed_at.between(first, last)
        found.update(conn.scalars(newest.where(*theirs)))
    return found


def reap(
    conn: Connection,
    now: datetime,
    fresh_for: timedelta = FRESH_FOR,
    after_loss: AfterLoss = again_at_once,
) -> Sequence[str]:
    """Take back the running jobs of processes that are not alive; their ids.

    They become `pending` (`canceled` in a batch that is being canceled); their attempts are closed as
    `lost`, with cost and usage unknown until the late writer returns and says. What `after_loss` gives up
    ends as `errored`: a job whose worker is lost again and again is taken for the cause.
    """
    orphans = text(RUNNING), job.c.worker_id.not_in(select(worker.c.id).where(_is_alive(now, fresh_for)))
    return _take_back(conn, orphans, now, after_loss=after_loss)


def running_of(conn: Connection, worker_id: str) -> Mapping[str, int]:
    """The jobs that the database believes this process to be working on, with the tokens of their leases."""
    mine = text(RUNNING), job.c.worker_id == worker_id
    return {row.id: row.token for row in conn.execute(select(job.c.id, job.c.token).where(*mine))}


def take_back(conn: Connection, worker_id: str, leases: Mapping[str, int], now: datetime) -> Sequence[str]:
    """Take back jobs of a live process that it knows nothing of, if their leases are still these; their ids.

    They go back at once, and it does not count as a loss: no process has ended.
    """
    lock_batches_of(conn, leases)  # nothing is granted from here on
    held = running_of(conn, worker_id)
    mine = text(RUNNING), job.c.worker_id == worker_id
    among = {job_id for job_id, token in leases.items() if held.get(job_id) == token}
    return _take_back(conn, mine, now, among=among, outcome=ORPHANED) if among else []


def _take_back(
    conn: Connection,
    orphans: Sequence[ColumnElement[bool] | TextClause],
    now: datetime,
    *,
    after_loss: AfterLoss | None = None,
    among: Collection[str] | None = None,
    outcome: str = LOST,
) -> Sequence[str]:
    found = [
        each for each in conn.scalars(select(job.c.id).where(*orphans)) if among is None or each in among
    ]
    if not found:
        return []
    lock_batches_of(conn, found)
    are_found = _IDS.among(conn.dialect.name, job.c.id)
    values = _IDS.parameters(((each,) for each in found), now=now, outcome=outcome)
    reaped = conn.execute(_TAKE_BACK.where(*orphans, are_found), values).all()
    tallies = Tallies()
    close(conn, _unheard(conn, [row.id for row in reaped], now, outcome), tallies)
    for row in reaped:
        if row.state != JobState.PENDING:
            tallies[row.batch_id].end(row)
    again = [row.id for row in reaped if row.state == JobState.PENDING]
    if after_loss is not None:
        _follow_losses(conn, again, now, after_loss, tallies)
    add(conn, tallies, now)
    return sorted(row.id for row in reaped)


def _follow_losses(
    conn: Connection, job_ids: Sequence[str], now: datetime, after_loss: AfterLoss, tallies: Tallies
) -> None:
    """Let those rest that were lost before, and end those that were lost too often."""
    decisions = {each: after_loss(losses) for each, losses in _losses(conn, job_ids).items()}
    resting = [
        (each, now + timedelta(seconds=decision.after))
        for each, decision in decisions.items()
        if isinstance(decision, Retry) and decision.after > 0
    ]
    if resting:
        conn.execute(_rest(conn.dialect.name), _RESTS.parameters(resting))
    ending = [(each,) for each, decision in decisions.items() if isinstance(decision, GiveUp)]
    if ending:
        is_one = _IDS.among(conn.dialect.name, job.c.id)
        for row in conn.execute(_GIVE_UP.where(is_one), _IDS.parameters(ending)).all():
            tallies[row.batch_id].end(row)


def _losses(conn: Connection, job_ids: Sequence[str]) -> Mapping[str, int]:
    """How often each was lost, without what was forgiven."""
    if not job_ids:
        return {}
    query = (
        select(attempt.c.job_id, func.count())
        .join(job, job.c.id == attempt.c.job_id)
        .where(
            _IDS.among(conn.dialect.name, attempt.c.job_id),
            attempt.c.outcome == LOST,
            attempt.c.number > job.c.forgiven,
        )
        .group_by(attempt.c.job_id)
    )
    counted = conn.execute(query, _IDS.parameters((each,) for each in job_ids))
    return {row[0]: row[1] for row in counted}


_MESSAGES = {LOST: LOST_MESSAGE, ORPHANED: ORPHANED_MESSAGE}
_TAKE_BACK = (
    update(job)
    .values(
        state=PENDING_OR_CANCELED,
        worker_id=None,
        not_before=None,
        **{**NO_FAILURE, "error_kind": bindparam("outcome")},
        changed_at=bindparam("now", type_=UTCDateTime()),
    )
    .returning(job.c.id, *ENDED)
)
_GIVE_UP = update(job).values(state=ended(JobState.ERRORED)).where(is_in(JobState.PENDING)).returning(*ENDED)
_IDS = Rowset(job.c.id)
_RESTS = Rowset(job.c.id, job.c.not_before)


@cache
def _rest(dialect: str) -> Update:
    given = _RESTS.on(dialect)
    return (
        update(job)
        .where(job.c.id == given.c.id, is_in(JobState.PENDING))
        .values(not_before=given.c.not_before)
    )


def _of(worker_id: str) -> Update:
    return update(worker).where(worker.c.id == worker_id, worker.c.stopped_at.is_(None))


def _is_alive(now: datetime, fresh_for: timedelta) -> ColumnElement[bool]:
    # A beat of a time still to come is from before the clock was set back: whoever lives has beaten since.
    is_fresh = and_(worker.c.seen_at > now - fresh_for, worker.c.seen_at < now + fresh_for)
    return and_(worker.c.stopped_at.is_(None), is_fresh)


def _unheard(conn: Connection, job_ids: Iterable[str], now: datetime, outcome: str) -> list[ClosedAttempt]:
    """The open attempts of these jobs, closed without anybody knowing what they used."""
    query = select(attempt.c.id).where(
        _IDS.among(conn.dialect.name, attempt.c.job_id), attempt.c.outcome == OPEN
    )
    ids = conn.scalars(query, _IDS.parameters((each,) for each in job_ids))
    return [
        ClosedAttempt(attempt_id=each, outcome=outcome, closed_at=now, error_message=_MESSAGES[outcome])
        for each in ids
    ]
