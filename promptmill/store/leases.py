"""The lease: a worker's right to write the outcome of a job, and the attempt opened with it.

Granting and opening are one commit. The token grows at every grant, so of two workers that both believe
they hold a job, only the newer one changes it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, insert, select, update
from sqlalchemy.sql.dml import ReturningUpdate

from promptmill.budgets import Budget, Verdict
from promptmill.states import JobState, Lane, PausedBy
from promptmill.store import control
from promptmill.store.columns import UTCDateTime
from promptmill.store.guards import BATCH_IS_ACTIVE, is_in
from promptmill.store.ledger import OPEN, USAGE_COLUMNS
from promptmill.store.outcomes import Deferral, defer
from promptmill.store.prepared import Prepared, PreparedInsert
from promptmill.store.rowsets import Rowset
from promptmill.store.tables import attempt, job
from promptmill.store.tallies import Tallies, add, lock_budgets_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A wish to begin a job: the permit is in hand, the call is about to be made.

    Attributes:
        dispatch: the number the message carried; another number means a newer message is out.
        attempt_id: a fresh id for the attempt (`new_id("attempt")`).
        reserved_nanos: nano-dollars set aside for the call; None when its price is unknown.
        again_at: when to send the job out again if the budget of its batch has no room for it now.
    """

    job_id: str
    dispatch: int
    attempt_id: str
    key_label: str
    account: str
    model: str
    reserved_nanos: int | None
    simulated: bool
    opened_at: datetime
    lane: Lane = Lane.REALTIME
    again_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to write one job's outcome; `number` counts the attempts of the job from 1."""

    job_id: str
    token: int
    attempt_id: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NoRoom:
    """The job is `pending` again: the budget of its batch has no room for the call.

    `stopped` says why the batch was paused because of it; None while other calls may give something back.
    """

    job_id: str
    attempt_id: str
    stopped: str | None


def begin(
    conn: Connection, claims: Sequence[Claim], worker_id: str, now: datetime
) -> dict[str, Lease | NoRoom]:
    """Grant leases and open their attempts; what is missing in the answer was refused.

    Refused is a job that is not `queued` under that dispatch number, or whose batch is not `active`.
    A job claimed twice in one group is granted once, to the first claim: compare `attempt_id`.
    A claim that is repeated because nobody knew whether its commit went through gets the lease it has.
    In a batch with a budget those are granted that fit, in order. Where nothing is in flight that could give
    room back, the batch is paused.
    """
    first = {claim.job_id: claim for claim in claims[::-1]}
    if not first:
        return {}
    budgets = lock_budgets_of(conn, first)
    in_order = [claim for claim in claims if first[claim.job_id] is claim]
    without_room = _without_room(conn, in_order, budgets) if budgets else {}
    fitting = [claim for claim in in_order if claim.job_id not in without_room]
    leases = _grant_all(conn, fitting, worker_id, now) if fitting else {}
    return leases | _send_back(conn, without_room, now) if without_room else leases


def _grant_all(
    conn: Connection, claims: Sequence[Claim], worker_id: str, now: datetime
) -> dict[str, Lease | NoRoom]:
    by_job = {claim.job_id: claim for claim in claims}
    wanted = ((claim.job_id, claim.dispatch) for claim in claims)
    granted = _GRANT.run(conn, _CLAIMS.parameters(wanted, worker_id=worker_id, now=now)).all()
    opened = [(by_job[row.id], row) for row in granted]
    leases: dict[str, Lease | NoRoom] = {
        claim.job_id: Lease(
            job_id=claim.job_id, token=row.token, attempt_id=claim.attempt_id, number=row.attempts
        )
        for claim, row in opened
    }
    if opened:
        _OPEN.run(conn, (_opened(claim, row, worker_id) for claim, row in opened))
        _count(conn, opened, now)
    refused = [claim.attempt_id for claim in claims if claim.job_id not in leases]
    return leases | _granted_before(conn, refused) if refused else leases


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A claim that does not fit into what is left of its batch's budget."""

    claim: Claim
    batch_id: str
    budget: Budget


def _without_room(
    conn: Connection, claims: Sequence[Claim], budgets: dict[str, Budget]
) -> dict[str, _Refusal]:
    """The claims that do not fit, by job; each with the budget once all that do fit have begun.

    The batches are locked: nobody else begins, settles or changes a budget meanwhile.
    """
    wanted = _CLAIMS.parameters((claim.job_id, claim.dispatch) for claim in claims)
    batch_of = {row.id: row.batch_id for row in _CLAIMABLE.run(conn, wanted)}
    refused: list[tuple[Claim, str]] = []
    for claim in claims:
        batch_id = batch_of.get(claim.job_id)
        if batch_id is None or batch_id not in budgets:
            continue
        if budgets[batch_id].verdict(claim.reserved_nanos) is Verdict.BEGIN:
            budgets[batch_id] = budgets[batch_id].with_call(claim.reserved_nanos or 0)
        else:
            refused.append((claim, batch_id))
    return {claim.job_id: _Refusal(claim, batch_id, budgets[batch_id]) for claim, batch_id in refused}


def _send_back(
    conn: Connection, refusals: Mapping[str, _Refusal], now: datetime
) -> dict[str, Lease | NoRoom]:
    """Put back what does not fit, and pause the batches that nothing can make fit any more."""
    back = (each.claim for each in refusals.values())
    defer(
        conn,
        [Deferral(job_id=each.job_id, dispatch=each.dispatch, not_before=each.again_at) for each in back],
        now,
    )
    stopped: dict[str, str] = {}
    for each in sorted(refusals.values(), key=lambda refusal: refusal.batch_id):
        wanted = each.claim.reserved_nanos
        if each.batch_id not in stopped and each.budget.verdict(wanted) is Verdict.EXHAUSTED:
            stopped[each.batch_id] = each.budget.why_stopped(wanted)
            control.hold(conn, each.batch_id, stopped[each.batch_id], now, by=PausedBy.BUDGET)
    return {
        job_id: NoRoom(job_id=job_id, attempt_id=each.claim.attempt_id, stopped=stopped.get(each.batch_id))
        for job_id, each in refusals.items()
    }


def _granted_before(conn: Connection, attempt_ids: Sequence[str]) -> dict[str, Lease | NoRoom]:
    """The leases of attempts that are open already: their commit went through, and its answer was lost."""
    rows = conn.execute(
        select(attempt.c.id, attempt.c.job_id, attempt.c.token, attempt.c.number)
        .join(job, job.c.id == attempt.c.job_id)
        .where(
            attempt.c.id.in_(attempt_ids),
            attempt.c.outcome == OPEN,
            job.c.token == attempt.c.token,
            job.c.state == JobState.RUNNING,
        )
    )
    return {
        row.job_id: Lease(job_id=row.job_id, token=row.token, attempt_id=row.id, number=row.number)
        for row in rows
    }


_CLAIMS = Rowset(job.c.id, job.c.dispatch)
_UNUSED = (0,) * len(USAGE_COLUMNS)


def _claimable(dialect: str) -> Select[tuple[str, str]]:
    given = _CLAIMS.on(dialect)
    return select(job.c.id, job.c.batch_id).where(
        job.c.id == given.c.id, job.c.dispatch == given.c.dispatch, is_in(JobState.QUEUED)
    )


def _grant(dialect: str) -> ReturningUpdate[Any]:
    given = _CLAIMS.on(dialect)
    return (
        update(job)
        .where(
            job.c.id == given.c.id,
            job.c.dispatch == given.c.dispatch,
            is_in(JobState.QUEUED),
            BATCH_IS_ACTIVE,
        )
        .values(
            state=JobState.RUNNING,
            token=job.c.token + 1,
            attempts=job.c.attempts + 1,
            worker_id=bindparam("worker_id"),
            queued_at=None,
            changed_at=bindparam("now", type_=UTCDateTime()),
        )
        .returning(job.c.id, job.c.batch_id, job.c.token, job.c.attempts, job.c.model_group)
    )


_CLAIMABLE = Prepared(_claimable)
_GRANT = Prepared(_grant)
_OPENED = (
    "id",
    "job_id",
    "batch_id",
    "number",
    "token",
    "worker_id",
    "key_label",
    "account",
    "model",
    "model_group",
    "lane",
    "opened_at",
    "outcome",
    *USAGE_COLUMNS,
    "reserved_nanos",
    "simulated",
)
_OPEN = PreparedInsert(lambda _: insert(attempt), *(attempt.c[name] for name in _OPENED))


def _opened(claim: Claim, granted: Row[Any], worker_id: str) -> tuple[Any, ...]:
    """In the order of _OPENED."""
    return (
        claim.attempt_id,
        claim.job_id,
        granted.batch_id,
        granted.attempts,
        granted.token,
        worker_id,
        claim.key_label,
        claim.account,
        claim.model,
        granted.model_group,
        claim.lane.value,
        claim.opened_at,
        OPEN,
        *_UNUSED,
        claim.reserved_nanos,
        claim.simulated,
    )


def _count(conn: Connection, opened: Sequence[tuple[Claim, Row[Any]]], now: datetime) -> None:
    tallies = Tallies()
    for claim, row in opened:
        tally = tallies[row.batch_id]
        tally.started_at = now
        tally.attempts += 1
        tally.reserved_nanos += claim.reserved_nanos or 0
    add(conn, tallies, now)
