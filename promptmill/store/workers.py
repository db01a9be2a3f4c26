"""Worker processes: one row each, kept fresh; a process lives while its row is.

Pass the database's time (`database_now`) as `now`, because the clocks of machines differ.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, Update, and_, bindparam, select, text, update
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from promptmill.states import JobState
from promptmill.store.columns import UTCDateTime
from promptmill.store.guards import PENDING_OR_CANCELED
from promptmill.store.ledger import LOST, OPEN, ClosedAttempt, close
from promptmill.store.rowsets import Rowset
from promptmill.store.tables import RUNNING, attempt, job, worker
from promptmill.store.tallies import Tallies, add, lock_batches_of

FRESH_FOR = timedelta(seconds=10)


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


def reap(conn: Connection, now: datetime, fresh_for: timedelta = FRESH_FOR) -> Sequence[str]:
    """Take back the running jobs of processes that are not alive; their ids.

    They become `pending` (`canceled` in a batch that is being canceled); their attempts are closed as
    `lost`, with cost and usage unknown until the late writer returns and says.
    """
    orphans = text(RUNNING), job.c.worker_id.not_in(select(worker.c.id).where(_is_alive(now, fresh_for)))
    found = conn.scalars(select(job.c.id).where(*orphans)).all()
    if not found:
        return []
    lock_batches_of(conn, found)
    are_found = _IDS.among(conn.dialect.name, job.c.id)
    values = _IDS.parameters(((each,) for each in found), now=now)
    reaped = conn.execute(_TAKE_BACK.where(*orphans, are_found), values).all()
    tallies = Tallies()
    close(conn, _lost(conn, [row.id for row in reaped], now), tallies)
    for row in reaped:
        if row.state == JobState.CANCELED:
            tallies[row.batch_id].canceled += 1
    add(conn, tallies, now)
    return sorted(row.id for row in reaped)


_TAKE_BACK = (
    update(job)
    .values(
        state=PENDING_OR_CANCELED,
        worker_id=None,
        not_before=None,
        error_kind=LOST,
        changed_at=bindparam("now", type_=UTCDateTime()),
    )
    .returning(job.c.id, job.c.batch_id, job.c.state)
)
_IDS = Rowset(job.c.id)


def _of(worker_id: str) -> Update:
    return update(worker).where(worker.c.id == worker_id, worker.c.stopped_at.is_(None))


def _is_alive(now: datetime, fresh_for: timedelta) -> ColumnElement[bool]:
    return and_(worker.c.stopped_at.is_(None), worker.c.seen_at > now - fresh_for)


def _lost(conn: Connection, job_ids: Iterable[str], now: datetime) -> list[ClosedAttempt]:
    """The open attempts of these jobs, closed without anybody knowing what they used."""
    query = select(attempt.c.id).where(
        _IDS.among(conn.dialect.name, attempt.c.job_id), attempt.c.outcome == OPEN
    )
    ids = conn.scalars(query, _IDS.parameters((each,) for each in job_ids))
    return [ClosedAttempt(attempt_id=each, outcome=LOST, closed_at=now) for each in ids]
