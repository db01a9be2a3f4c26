"""The lease: a worker's right to write the outcome of a job, and the attempt opened with it.

Granting and opening are one commit. The token grows at every grant, so of two workers that both believe
they hold a job, only the newer one changes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Connection, Row, bindparam, insert, select, update
from sqlalchemy.sql.dml import ReturningUpdate

from promptmill.states import JobState, Lane
from promptmill.store.columns import UTCDateTime
from promptmill.store.guards import BATCH_IS_ACTIVE, is_in
from promptmill.store.ledger import OPEN, USAGE_COLUMNS
from promptmill.store.rowsets import Rowset
from promptmill.store.tables import attempt, job
from promptmill.store.tallies import Tallies, add, lock_batches_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A wish to begin a job: the permit is in hand, the call is about to be made.

    Attributes:
        dispatch: the number the message carried; another number means a newer message is out.
        attempt_id: a fresh id for the attempt (`new_id("attempt")`).
        reserved_nanos: nano-dollars set aside for the call; None when its price is unknown.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to write one job's outcome; `number` counts the attempts of the job from 1."""

    job_id: str
    token: int
    attempt_id: str
    number: int


def begin(conn: Connection, claims: Sequence[Claim], worker_id: str, now: datetime) -> dict[str, Lease]:
    """Grant leases and open their attempts; what is missing in the answer was refused.

    Refused is a job that is not `queued` under that dispatch number, or whose batch is not `active`.
    A job claimed twice in one group is granted once, to the first claim: compare `attempt_id`.
    A claim that is repeated because nobody knew whether its commit went through gets the lease it has.
    """
    first = {claim.job_id: claim for claim in reversed(claims)}
    if not first:
        return {}
    lock_batches_of(conn, first)
    wanted = ((claim.job_id, claim.dispatch) for claim in first.values())
    granted = conn.execute(
        _grant(conn.dialect.name), _CLAIMS.parameters(wanted, worker_id=worker_id, now=now)
    ).all()
    opened = [(first[row.id], row) for row in granted]
    leases = {
        claim.job_id: Lease(
            job_id=claim.job_id, token=row.token, attempt_id=claim.attempt_id, number=row.attempts
        )
        for claim, row in opened
    }
    if opened:
        conn.execute(insert(attempt), [_opened(claim, row, worker_id) for claim, row in opened])
        _count(conn, opened, now)
    refused = [claim.attempt_id for claim in first.values() if claim.job_id not in leases]
    return leases | _granted_before(conn, refused) if refused else leases


def _granted_before(conn: Connection, attempt_ids: Sequence[str]) -> dict[str, Lease]:
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
_UNUSED: dict[str, Any] = dict.fromkeys(USAGE_COLUMNS, 0)


@cache
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


def _opened(claim: Claim, granted: Row[Any], worker_id: str) -> dict[str, Any]:
    return {
        **_UNUSED,
        "id": claim.attempt_id,
        "job_id": claim.job_id,
        "batch_id": granted.batch_id,
        "number": granted.attempts,
        "token": granted.token,
        "worker_id": worker_id,
        "key_label": claim.key_label,
        "account": claim.account,
        "model": claim.model,
        "model_group": granted.model_group,
        "lane": claim.lane,
        "opened_at": claim.opened_at,
        "outcome": OPEN,
        "reserved_nanos": claim.reserved_nanos,
        "simulated": claim.simulated,
    }


def _count(conn: Connection, opened: Sequence[tuple[Claim, Row[Any]]], now: datetime) -> None:
    tallies = Tallies()
    for claim, row in opened:
        tally = tallies[row.batch_id]
        tally.started_at = now
        tally.attempts += 1
        tally.reserved_nanos += claim.reserved_nanos or 0
    add(conn, tallies, now)
