"""A commit whose answer was lost is done again: nothing is begun, written or counted twice."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from promptmill.clock import SystemClock
from promptmill.errors import Unavailable
from promptmill.ids import new_id
from promptmill.states import JobState
from promptmill.store import Connection, jobs, ledger, stats
from promptmill.store.database import Database
from promptmill.store.jobs import Completion
from promptmill.store.leases import Claim, Lease
from promptmill.store.ledger import ClosedAttempt
from promptmill.testing import a_batch
from promptmill.usage import Usage
from workers.statements import lock_jobs, store_statements
from workers.writer import Write, Writer

NOW = SystemClock().now()


class Wire:
    """The way to the database; `lose` makes it drop the answer of the next commits, which went through."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.lose = 0

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        with self.database.begin() as connection:
            yield connection
        if self.lose:
            self.lose -= 1
            raise Unavailable("the connection was cut after the commit")


@pytest.fixture
def wire(database: Database) -> Wire:
    return Wire(database)


@pytest.fixture
def writer(wire: Wire) -> Iterator[Writer]:
    writer = Writer(wire.begin, store_statements("w", SystemClock()), prepare=lock_jobs)
    writer.start()
    yield writer
    writer.stop()


def a_claim(database: Database, batch_id: str) -> Claim:
    with database.begin() as connection:
        [pending] = jobs.select_pending(connection, batch_id, "claude-sonnet-5", 1, NOW)
        [queued] = jobs.queue(connection, [pending.id], NOW)
    return Claim(
        job_id=queued.job_id,
        dispatch=queued.dispatch,
        attempt_id=new_id("attempt"),
        key_label="k",
        account="a",
        model=queued.model,
        reserved_nanos=5,
        simulated=True,
        opened_at=NOW,
    )


def a_completion(lease: Lease) -> Completion:
    usage = Usage(input_tokens=3, output_tokens=4)
    attempt = ClosedAttempt(
        attempt_id=lease.attempt_id, outcome=ledger.SUCCEEDED, closed_at=NOW, usage=usage, cost_nanos=7
    )
    return Completion(
        job_id=lease.job_id,
        token=lease.token,
        attempt=attempt,
        message={"type": "message"},
        text="4",
        stop_reason="end_turn",
        model="m",
        simulated=True,
    )


async def test_a_lease_is_granted_to_its_claim_although_the_first_answer_was_lost(
    database: Database, wire: Wire, writer: Writer
) -> None:
    batch = a_batch(database, 1)
    claim = a_claim(database, batch.id)
    wire.lose = 1
    lease = await writer.put(Write.BEGIN, claim)
    assert (lease.attempt_id, lease.token) == (claim.attempt_id, 1)
    with database.read() as connection:
        assert ledger.costs(connection, batch.id).attempts == 1


async def test_another_claim_for_a_running_job_is_still_refused(
    database: Database, wire: Wire, writer: Writer
) -> None:
    claim = a_claim(database, a_batch(database, 1).id)
    await writer.put(Write.BEGIN, claim)
    other = Claim(**{**_fields(claim), "attempt_id": new_id("attempt")})
    assert await writer.put(Write.BEGIN, other) is None


async def test_an_answer_is_counted_once_although_its_commit_was_repeated(
    database: Database, wire: Wire, writer: Writer
) -> None:
    batch = a_batch(database, 1)
    lease = await writer.put(Write.BEGIN, a_claim(database, batch.id))
    wire.lose = 2
    assert await writer.put(Write.COMPLETE, a_completion(lease))
    with database.read() as connection:
        status = stats.status(connection, batch.id, NOW)
    assert status.jobs[JobState.SUCCEEDED] == status.batch.succeeded == 1
    assert (status.batch.cost_nanos, status.batch.input_tokens, status.batch.reserved_nanos) == (7, 3, 0)


def _fields(claim: Claim) -> dict[str, Any]:
    return {name: getattr(claim, name) for name in Claim.__dataclass_fields__}
