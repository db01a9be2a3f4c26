"""Results: the jobs of a batch in the order of submission, streamed page by page."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, bindparam, func, select

from promptmill.advice import advice_for
from promptmill.states import JobState
from promptmill.store.ledger import OPEN, SUCCEEDED, USAGE_COLUMNS
from promptmill.store.rowsets import Rowset
from promptmill.store.tables import attempt, batch, job, prompt, reply
from promptmill.usage import Usage


@dataclass(frozen=True, slots=True)
class ResultError:
    """The last attempt that failed: what it was and what the server said."""

    kind: str
    status: int | None
    type: str | None
    code: str | None
    message: str | None
    request_id: str | None

    @property
    def advice(self) -> str:
        """What a person can do about it, in a sentence."""
        return advice_for(self.kind, status=self.status, error_code=self.code)


@dataclass(slots=True, kw_only=True)  # not frozen: that is what making one costs most
class ResultRow:
    """One job with its answer and what it took.

    Attributes:
        usage: summed over all attempts.
        cost_nanos: the sum of the attempts with a known cost; None when no attempt has one.
        unpriced_attempts: closed attempts with an unknown cost, which `cost_nanos` does not hold.
        error: None when the job succeeded or nothing failed.
    """

    custom_id: str
    job_id: str
    seq: int
    state: JobState
    message: Mapping[str, Any] | None
    text: str | None
    stop_reason: str | None
    parsed: Any
    usage: Usage
    cost_nanos: int | None
    unpriced_attempts: int
    attempts: int
    error: ResultError | None
    source: Mapping[str, Any] | None
    simulated: bool


def iterate(
    conn: Connection, batch_id: str, only: Collection[JobState] | None = None, *, page: int = 200
) -> Iterator[ResultRow]:
    """The jobs of a batch in submission order, `page` at a time, so memory does not grow with the batch.

    Args:
        conn: used until the iterator ends.
        batch_id: which batch.
        only: the states wanted; all when None.
        page: rows read at once.
    """
    states = sorted(JobState if only is None else only)
    places = page if only is None else page * _SPARSE
    first: int | None = 0
    while first is not None:
        window = {"of_batch": batch_id, "first": first, "last": first + places - 1}
        rows = conn.execute(_PAGE, {**window, "page": page, "states": states}).all()
        ledgers = _ledgers(conn, [row.id for row in rows])
        for row in rows:
            yield _result(row, ledgers.get(row.id, _NOTHING))
        if len(rows) == page:
            first = rows[-1].seq + 1
        else:
            first = conn.scalar(_NEXT, {"of_batch": batch_id, "seen": window["last"]})


@dataclass(slots=True)
class _Ledger:
    """The attempts of one job, added up."""

    usage: Usage | None = None
    cost_nanos: int | None = None
    unpriced: int = 0
    error: ResultError | None = None

    def add(self, outcome: str, cost_nanos: int | None, usage: Usage, *error: Any) -> None:
        """Add one attempt; they come in the order of their numbers."""
        self.usage = usage if self.usage is None else self.usage + usage
        if cost_nanos is not None:
            self.cost_nanos = (self.cost_nanos or 0) + cost_nanos
        elif outcome != OPEN:
            self.unpriced += 1
        if outcome not in (OPEN, SUCCEEDED):
            self.error = ResultError(outcome, *error)


_NOTHING_USED = Usage()
_NOTHING = _Ledger()


# Pages of places looked at for one page of some states. A page is looked for between two places, because Postgres
# may think that a batch just submitted holds ten jobs, and sort all that come after.
_SPARSE = 10
_NEXT = select(func.min(job.c.seq)).where(
    job.c.batch_id == bindparam("of_batch"), job.c.seq > bindparam("seen")
)
# Narrow rows first: the large ones are fetched for a page only.
_JOBS = (
    select(job)
    .where(
        job.c.batch_id == bindparam("of_batch"),
        job.c.seq.between(bindparam("first"), bindparam("last")),
        job.c.state.in_(bindparam("states", expanding=True)),
    )
    .order_by(job.c.seq)
    .limit(bindparam("page"))
    .subquery()
)
_PAGE: Select[Any] = (
    select(
        _JOBS.c.id,
        _JOBS.c.seq,
        _JOBS.c.custom_id,
        _JOBS.c.state,
        _JOBS.c.attempts,
        _JOBS.c.error_kind,
        func.coalesce(reply.c.simulated, batch.c.simulated).label("simulated"),
        prompt.c.source,
        reply.c.message,
        reply.c.text,
        reply.c.stop_reason,
        reply.c.parsed,
    )
    .join_from(_JOBS, batch, batch.c.id == _JOBS.c.batch_id)
    .join(prompt, prompt.c.job_id == _JOBS.c.id)
    # What an open job has is cut off and kept in case no longer one comes.
    .outerjoin(reply, and_(reply.c.job_id == _JOBS.c.id, _JOBS.c.state == JobState.SUCCEEDED))
    .order_by(_JOBS.c.seq)
)
_IDS = Rowset(job.c.id)
_ERROR = ("status", "error_type", "error_code", "error_message", "request_id")
_USED = slice(1, 1 + len(USAGE_COLUMNS))


@cache
def _attempts(dialect: str) -> Select[Any]:
    return (
        select(*(attempt.c[name] for name in ("job_id", *USAGE_COLUMNS, "outcome", "cost_nanos", *_ERROR)))
        .where(_IDS.among(dialect, attempt.c.job_id))
        .order_by(attempt.c.job_id, attempt.c.number)
    )


def _ledgers(conn: Connection, job_ids: Iterable[str]) -> dict[str, _Ledger]:
    ledgers: defaultdict[str, _Ledger] = defaultdict(_Ledger)
    wanted = _IDS.parameters((each,) for each in job_ids)
    for row in conn.execute(_attempts(conn.dialect.name), wanted):
        usage = Usage(**dict(zip(USAGE_COLUMNS, row[_USED], strict=True)))
        outcome, cost_nanos, *error = row[_USED.stop :]
        ledgers[row[0]].add(outcome, cost_nanos, usage, *error)
    return ledgers


def _result(row: Row[Any], ledger: _Ledger) -> ResultRow:
    state = JobState(row.state)
    return ResultRow(
        custom_id=row.custom_id,
        job_id=row.id,
        seq=row.seq,
        state=state,
        message=row.message,
        text=row.text,
        stop_reason=row.stop_reason,
        parsed=row.parsed,
        usage=ledger.usage or _NOTHING_USED,
        cost_nanos=ledger.cost_nanos,
        unpriced_attempts=ledger.unpriced,
        attempts=row.attempts,
        error=None if state is JobState.SUCCEEDED else _error(row.error_kind, ledger.error),
        source=row.source,
        simulated=row.simulated,
    )


def _error(kind: str | None, last: ResultError | None) -> ResultError | None:
    """What the job was given up for; with the words of the server where that was its last failure."""
    if kind is None or (last is not None and last.kind == kind):
        return last
    return ResultError(kind, None, None, None, None, None)
