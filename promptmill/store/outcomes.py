"""Outcomes: what a worker reports about jobs, written in groups.

Attempts are closed for all; the job, its reply and the counters change only for the holder of the newest
token. So a duplicate or a worker thought dead changes nothing, and what it spent is recorded all the same.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Insert,
    Select,
    String,
    Update,
    and_,
    bindparam,
    column,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.sql.dml import ReturningUpdate
from sqlalchemy.sql.selectable import NamedFromClause

from promptmill.retries import TRUNCATED
from promptmill.states import BatchState, JobState
from promptmill.store import purging
from promptmill.store.columns import UTCDateTime
from promptmill.store.guards import PENDING_OR_CANCELED, ended, is_in
from promptmill.store.ledger import LOST, ClosedAttempt, close, count_stop_reason
from promptmill.store.prepared import Prepared, PreparedInsert
from promptmill.store.purging import Part
from promptmill.store.rowsets import Rowset
from promptmill.store.tables import FAILED_OF, NO_FAILURE, SERVED, attempt, batch, job, reply
from promptmill.store.tallies import ENDED, FAILED_JOBS, Tallies, add, as_word, failed_of, lock_batches_of
from promptmill.store.waiting import end_waiting


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A reply, to be accepted from `running`, `pending` or `queued` if the token is the newest.

    Also from `errored`, where the job was given up because its workers were lost and nobody was granted it since.
    """

    job_id: str
    token: int
    attempt: ClosedAttempt
    message: Mapping[str, Any]
    text: str
    stop_reason: str | None
    model: str
    simulated: bool
    parsed: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deferral:
    """Try again later: back to `pending`, not to be dispatched before `not_before`.

    With `token` (and the attempt to close) for a running job, with `dispatch` for one still queued. `kept` is an
    answer that was cut off: the job ends with it unless a longer one comes.
    """

    job_id: str
    not_before: datetime | None
    token: int | None = None
    dispatch: int | None = None
    attempt: ClosedAttempt | None = None
    error_kind: str | None = None
    kept: Completion | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Given up: `errored`, or `expired` when the deadline passed; `succeeded` with an answer that was kept.

    With `token` (and the attempt to close) for a job that was begun, with `dispatch` for one still queued.
    """

    job_id: str
    error_kind: str
    token: int | None = None
    dispatch: int | None = None
    attempt: ClosedAttempt | None = None
    state: JobState = JobState.ERRORED


def complete(conn: Connection, completions: Sequence[Completion], now: datetime) -> set[str]:
    """Write replies; the ids of the jobs that were accepted."""
    tallies, closed = _record(conn, completions)
    gone: Collection[str] = ()
    tokens = ((each.job_id, each.token) for each in completions)
    given = _TOKENS.parameters(tokens, now=now)
    accepted = _SUCCEED.run(conn, given).all()
    if len(accepted) < len(completions):
        late = _SUCCEED_LATE.run(conn, given).all()
        for row in late:
            tallies[row.batch_id].errored -= 1
            tallies[row.batch_id].words[FAILED_JOBS, failed_of(JobState.ERRORED, LOST)] -= 1
        accepted = [*accepted, *late]
        gone = purging.purged(conn, {row.batch_id for row in late}, Part.ANSWERS)
    first = {(each.job_id, each.token): each for each in reversed(completions)}
    replies = [
        _reply_values(_emptied(first[row.id, row.token], row.batch_id in gone), now) for row in accepted
    ]
    if replies:
        _STORE_REPLY.run(conn, replies)
    told_before: dict[str, tuple[str, Completion]] = {}
    for row in accepted:
        tallies[row.batch_id].succeeded += 1
        tallies[row.batch_id].formula_tokens_answered += row.estimated_input_tokens
        answer = first[row.id, row.token]
        if answer.attempt.attempt_id not in closed:
            told_before[answer.attempt.attempt_id] = row.batch_id, answer
    _count_cut(conn, told_before, tallies)
    add(conn, tallies, now)
    return {row.id for row in accepted}


def fail(conn: Connection, failures: Sequence[Failure], now: datetime) -> dict[str, JobState]:
    """End jobs without an answer; the jobs that were, and how: one whose answer was kept succeeds with that."""
    tallies, _ = _record(conn, failures)
    given = ((*_report(each), each.state) for each in failures)
    found = _END.run(conn, _FAILURES.parameters(given, now=now)).all()
    for row in found:
        tallies[row.batch_id].end(row)
    add(conn, tallies, now)
    return {row.id: JobState(row.state) for row in found}


def defer(conn: Connection, deferrals: Sequence[Deferral], now: datetime) -> dict[str, JobState]:
    """Send jobs back to `pending`; the jobs that went, and what they are now.

    In a batch that is being canceled such a job ends instead, `canceled` or with what was kept.
    """
    tallies, closed = _record(conn, deferrals)
    _keep(
        conn, [each.kept for each in deferrals if each.kept and each.kept.attempt.attempt_id in closed], now
    )
    given = ((*_report(each), each.not_before) for each in deferrals)
    gone = _SEND_BACK.run(conn, _DEFERRALS.parameters(given, now=now)).all()
    for row in gone:
        if row.state != JobState.PENDING:
            tallies[row.batch_id].end(row)
    add(conn, tallies, now)
    return {row.id: JobState(row.state) for row in gone}


def _keep(conn: Connection, cut: Sequence[Completion], now: datetime) -> None:
    """Store answers that were cut off, of the jobs that are still the writer's; the batches are locked.

    Each once, and only of an attempt that this report has closed: by that the audit knows that it was cut off.
    """
    if not cut:
        return
    given = _TOKENS.parameters((each.job_id, each.token) for each in cut)
    open_ = {(row.id, row.token) for row in _STILL_OPEN.run(conn, given)}
    first = {(each.job_id, each.token): each for each in reversed(cut)}
    if replies := [_reply_values(each, now) for place, each in first.items() if place in open_]:
        _STORE_REPLY.run(conn, replies)


def _count_cut(conn: Connection, answers: Mapping[str, tuple[str, Completion]], tallies: Tallies) -> None:
    """Count how these ended whose attempts were closed before, as cut off; by attempt, each with its batch.

    Somebody has told of one attempt in two ways. As with a kept answer, what the job now has is what counts.
    """
    if not answers:
        return
    for attempt_id in _CUT.run(conn, _ATTEMPTS.parameters((each,) for each in answers)).scalars():
        batch_id, completion = answers[attempt_id]
        count_stop_reason(tallies[batch_id], completion.stop_reason)


def _record(conn: Connection, reports: Sequence[Completion | Failure | Deferral]) -> tuple[Tallies, set[str]]:
    """Lock the batches and close the attempts, whoever holds the jobs by now; the ids of those that were closed."""
    lock_batches_of(conn, {each.job_id for each in reports})
    tallies = Tallies()
    return tallies, close(conn, (each.attempt for each in reports if each.attempt), tallies)


def replied_by(conn: Connection, attempts: Iterable[tuple[str, str]]) -> set[str]:
    """The ids of those attempts whose answer is the reply of their job, of (job id, attempt id) pairs."""
    return set(_REPLIED_BY.run(conn, _REPLIES.parameters(attempts)).scalars())


def expire_overdue(conn: Connection, now: datetime) -> int:
    """End the `pending` and `queued` jobs of a batch whose deadline has passed; how many. Running ones finish.

    To be called until it returns 0, and then again and again: each call sees to one batch, a large one is ended
    in several goes, one that somebody writes to at the moment is left to the next call, and a cancel that was
    too large for one transaction goes on here.
    """
    for row in conn.execute(_OVERDUE, {"now": now}).all():
        state = JobState.CANCELED if row.state == BatchState.CANCELING else JobState.EXPIRED
        tally = end_waiting(conn, row.id, state, now)
        if tally.done:
            tallies = Tallies()
            tallies[row.id] = tally
            add(conn, tallies, now)
            return tally.done
    return 0


_REPLIES = Rowset(reply.c.job_id, reply.c.attempt_id)
_ATTEMPTS = Rowset(attempt.c.id)
_TOKENS = Rowset(job.c.id, job.c.token)
_REPORT = (job.c.id, job.c.token, job.c.dispatch, *(job.c[name] for name in FAILED_OF))
_FAILURES = Rowset(*_REPORT, column("end_state", String))
_DEFERRALS = Rowset(*_REPORT, job.c.not_before)
_OPEN_STATES = (JobState.RUNNING, JobState.PENDING, JobState.QUEUED)
_NOW = bindparam("now", type_=UTCDateTime())
_OVERDUE = (
    select(batch.c.id, batch.c.state)
    .where(text(SERVED), or_(batch.c.deadline <= _NOW, batch.c.state == BatchState.CANCELING))
    .order_by(batch.c.id)
    # One that is being written to is left to the next call: waiting for it could close a ring.
    .with_for_update(key_share=True, skip_locked=True)
)


def _free(**values: Any) -> Update:
    """A job that no process works on any more."""
    return update(job).values(worker_id=None, queued_at=None, changed_at=_NOW, **values)


def _report(report: Failure | Deferral) -> tuple[Any, ...]:
    """The values of _REPORT: what the server said is kept beside the kind that it was taken for."""
    said: tuple[Any, ...] = (None, None, None)
    if report.attempt is not None and report.attempt.outcome == report.error_kind:
        words = (report.attempt.error_type, report.attempt.error_code)
        said = (report.attempt.status, *map(as_word, words))
    return (report.job_id, report.token, report.dispatch, report.error_kind, *said)


def _failed_of(given: NamedFromClause) -> dict[str, ColumnElement[Any]]:
    return {name: given.c[name] for name in FAILED_OF}


def _succeed(dialect: str) -> ReturningUpdate[Any]:
    return _succeed_where(dialect, is_in(*_OPEN_STATES))


def _succeed_late(dialect: str) -> ReturningUpdate[Any]:
    """Given up because its workers were lost, and the last of them returns with the answer: it is paid for."""
    return _succeed_where(dialect, and_(is_in(JobState.ERRORED), job.c.error_kind == LOST))


def _succeed_where(dialect: str, may: ColumnElement[bool]) -> ReturningUpdate[Any]:
    given = _TOKENS.on(dialect)
    return (
        _free(state=JobState.SUCCEEDED, not_before=None, **NO_FAILURE)
        .where(job.c.id == given.c.id, job.c.token == given.c.token, may)
        .returning(job.c.id, job.c.batch_id, job.c.token, job.c.estimated_input_tokens)
    )


def _still_open(dialect: str) -> Select[tuple[str, int]]:
    given = _TOKENS.on(dialect)
    return select(job.c.id, job.c.token).where(
        job.c.id == given.c.id, job.c.token == given.c.token, is_in(*_OPEN_STATES)
    )


def _end(dialect: str) -> ReturningUpdate[Any]:
    given = _FAILURES.on(dialect)
    return (
        _free(state=ended(given.c.end_state), not_before=None, **_failed_of(given))
        .where(
            job.c.id == given.c.id,
            or_(
                # The newest token is that of the newest attempt: what was forgiven since ends nothing any more.
                and_(
                    job.c.token == given.c.token,
                    job.c.attempts > job.c.forgiven,
                    is_in(*_OPEN_STATES),
                ),
                and_(job.c.dispatch == given.c.dispatch, is_in(JobState.QUEUED)),
            ),
        )
        .returning(job.c.id, *ENDED)
    )


def _send_back(dialect: str) -> ReturningUpdate[Any]:
    given = _DEFERRALS.on(dialect)
    return (
        _free(state=PENDING_OR_CANCELED, not_before=given.c.not_before, **_failed_of(given))
        .where(
            job.c.id == given.c.id,
            or_(
                and_(job.c.token == given.c.token, is_in(JobState.RUNNING)),
                and_(job.c.dispatch == given.c.dispatch, is_in(JobState.QUEUED)),
            ),
        )
        .returning(job.c.id, *ENDED)
    )


def _replied_by(dialect: str) -> Select[tuple[str]]:
    given = _REPLIES.on(dialect)
    return select(reply.c.attempt_id).where(
        reply.c.job_id == given.c.job_id, reply.c.attempt_id == given.c.attempt_id
    )


def _store_reply(dialect: str) -> Insert:
    # A job that was sent to be answered again replaces its former reply.
    insert = sqlite_insert(reply) if dialect == "sqlite" else postgres_insert(reply)
    new = {each.name: insert.excluded[each.name] for each in reply.columns if not each.primary_key}
    return insert.on_conflict_do_update(index_elements=[reply.c.job_id], set_=new)


_SUCCEED = Prepared(_succeed)
_SUCCEED_LATE = Prepared(_succeed_late)
_CUT = Prepared(
    lambda dialect: select(attempt.c.id).where(
        _ATTEMPTS.among(dialect, attempt.c.id), attempt.c.outcome == TRUNCATED
    )
)
_STILL_OPEN = Prepared(_still_open)
_END = Prepared(_end)
_SEND_BACK = Prepared(_send_back)
_REPLIED_BY = Prepared(_replied_by)
_STORE_REPLY = PreparedInsert(_store_reply, *reply.columns)


def _emptied(completion: Completion, is_gone: bool) -> Completion:
    """Of an answer to a batch that was purged meanwhile only the ledger is kept."""
    return replace(completion, text="", message={}, parsed=None) if is_gone else completion


def _reply_values(completion: Completion, now: datetime) -> tuple[Any, ...]:
    """In the order of the columns of `reply`."""
    return (
        completion.job_id,
        completion.attempt.attempt_id,
        as_word(completion.stop_reason),
        completion.model,
        completion.simulated,
        now,
        completion.text,
        completion.parsed,
        completion.message,
    )
