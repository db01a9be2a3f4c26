"""A small world to test the store in: batches of short prompts, workers, and a clock moved by hand."""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from sqlalchemy import select

from producers import audit_checks
from promptmill.ids import new_id
from promptmill.states import TERMINAL_JOB_STATES, BatchState, JobState
from promptmill.store import audit, batches, control, jobs, leases, ledger, workers
from promptmill.store.batches import BatchRow, NewBatch
from promptmill.store.database import Database
from promptmill.store.jobs import Completion, Deferral, Failure, NewJob, QueuedJob
from promptmill.store.leases import Claim, Lease
from promptmill.store.ledger import ClosedAttempt
from promptmill.store.tables import job, reply
from promptmill.usage import Usage

GROUP = "claude-sonnet-5"
USED = Usage(input_tokens=100, output_tokens=20, cache_write_5m_tokens=3, cache_read_tokens=7)


class World:
    """One database with what a test does to it said in few words."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.now = datetime(2026, 3, 1, 12, tzinfo=UTC)
        self._numbers = count()

    def tick(self, seconds: float) -> datetime:
        self.now += timedelta(seconds=seconds)
        return self.now

    def new_job(self, seq: int, **changes: Any) -> NewJob:
        body = {"messages": [{"role": "user", "content": f"What is {seq}?"}]}
        values: dict[str, Any] = {
            "seq": seq,
            "custom_id": f"row-{seq}",
            "model_group": GROUP,
            "body": body,
            "fingerprint": f"print of {seq}",
            "estimated_input_tokens": 100,
            "estimated_output_tokens": 50,
            "source": {"line": seq},
        }
        return NewJob(**(values | changes))

    def new_batch(self, **changes: Any) -> NewBatch:
        values: dict[str, Any] = {
            "name": f"batch {next(self._numbers)}",
            "model": GROUP,
            "shared": {"model": GROUP, "max_tokens": 64},
            "endpoint": "http://127.0.0.1:9",
            "simulated": True,
        }
        return NewBatch(**(values | changes))

    def admitting(self, jobs_: int = 3, **changes: Any) -> BatchRow:
        with self.database.begin() as conn:
            made = batches.create(conn, self.new_batch(**changes), self.now)
            jobs.insert_many(conn, made.id, [self.new_job(seq) for seq in range(jobs_)], self.now)
            return batches.get(conn, made.id)

    def batch(self, jobs_: int = 3, **changes: Any) -> BatchRow:
        """A sealed batch."""
        made = self.admitting(jobs_, **changes)
        with self.database.begin() as conn:
            return control.seal(conn, made.id, self.now)

    def row(self, batch: BatchRow) -> BatchRow:
        with self.database.read() as conn:
            return batches.get(conn, batch.id)

    def dispatch(self, batch: BatchRow, number: int = 100) -> list[QueuedJob]:
        with self.database.begin() as conn:
            pending = jobs.select_pending(conn, batch.id, GROUP, number, self.now)
            return jobs.queue(conn, [each.id for each in pending], self.now)

    def claim(self, queued: QueuedJob, **changes: Any) -> Claim:
        values: dict[str, Any] = {
            "job_id": queued.job_id,
            "dispatch": queued.dispatch,
            "attempt_id": new_id("attempt"),
            "key_label": "main",
            "account": "acme",
            "model": GROUP,
            "reserved_nanos": 1_000,
            "simulated": True,
            "opened_at": self.now,
        }
        return Claim(**(values | changes))

    def begin(self, queued: Sequence[QueuedJob], worker: str = "worker-1") -> list[Lease]:
        with self.database.begin() as conn:
            granted = leases.begin(conn, [self.claim(each) for each in queued], worker, self.now)
        return [granted[each.job_id] for each in queued if each.job_id in granted]

    def running(self, batch: BatchRow, number: int = 100, worker: str = "worker-1") -> list[Lease]:
        """Jobs taken all the way to `running`, by a worker that lives."""
        self.alive(worker)
        return self.begin(self.dispatch(batch, number), worker)

    def alive(self, worker: str) -> None:
        new = workers.NewWorker(id=worker, host="here", pid=1, version="0", endpoint=None, slots=10)
        with self.database.begin() as conn:
            workers.register(conn, new, self.now)

    def closed(self, lease: Lease, outcome: str = "succeeded", **changes: Any) -> ClosedAttempt:
        values: dict[str, Any] = {
            "attempt_id": lease.attempt_id,
            "outcome": outcome,
            "closed_at": self.now,
            "usage": USED,
            "usage_raw": {"input_tokens": 100},
            "cost_nanos": 600_000,
            "price_version": "2026-03",
        }
        return ClosedAttempt(**(values | changes))

    def completion(self, lease: Lease, text: str = "42", **changes: Any) -> Completion:
        message = {"type": "message", "content": [{"type": "text", "text": text}]}
        values: dict[str, Any] = {
            "job_id": lease.job_id,
            "token": lease.token,
            "attempt": self.closed(lease),
            "message": message,
            "text": text,
            "stop_reason": "end_turn",
            "model": GROUP,
            "simulated": True,
        }
        return Completion(**(values | changes))

    def deferral(self, lease: Lease, kind: str = "overloaded", after: float = 5) -> Deferral:
        closed = self.closed(lease, kind, usage=None, usage_raw=None, cost_nanos=0)
        return Deferral(
            job_id=lease.job_id,
            token=lease.token,
            not_before=self.now + timedelta(seconds=after),
            attempt=closed,
            error_kind=kind,
        )

    def failure(self, lease: Lease, kind: str = "prompt_rejected") -> Failure:
        closed = self.closed(lease, kind, usage=None, usage_raw=None, cost_nanos=0)
        return Failure(job_id=lease.job_id, token=lease.token, attempt=closed, error_kind=kind)

    def complete(self, *leases_: Lease) -> set[str]:
        with self.database.begin() as conn:
            return jobs.complete(conn, [self.completion(each) for each in leases_], self.now)

    def defer(self, *leases_: Lease, after: float = 5) -> set[str]:
        with self.database.begin() as conn:
            return set(jobs.defer(conn, [self.deferral(each, after=after) for each in leases_], self.now))

    def fail(self, *leases_: Lease) -> set[str]:
        with self.database.begin() as conn:
            return set(jobs.fail(conn, [self.failure(each) for each in leases_], self.now))

    def reap(self) -> Sequence[str]:
        with self.database.begin() as conn:
            return workers.reap(conn, self.now)

    def states(self, batch: BatchRow) -> dict[str, JobState]:
        """The state of each job, by custom_id, in the order of submission."""
        query = select(job.c.custom_id, job.c.state).where(job.c.batch_id == batch.id).order_by(job.c.seq)
        with self.database.read() as conn:
            return {row.custom_id: JobState(row.state) for row in conn.execute(query)}

    def assert_adds_up(self, batch: BatchRow) -> None:
        """The counters of a batch are those of its jobs and attempts, and what runs has an open attempt."""
        with self.database.read() as conn:
            row = batches.get(conn, batch.id)
            costs = ledger.costs(conn, batch.id)
            attempts = ledger.attempts_of(conn, batch_id=batch.id)
            rows = conn.execute(select(job).where(job.c.batch_id == batch.id)).all()
            found = audit_checks.checks(row, audit.count(conn, batch.id, self.now))
            replies = set(conn.scalars(select(reply.c.job_id).join(job).where(job.c.batch_id == batch.id)))
        assert [each for each in found if not each.ok and each.name not in _NOT_HELD_HERE] == []
        _assert_counts(row, [JobState(each.state) for each in rows])
        _assert_costs(row, costs)
        held = {(each.id, each.token, each.attempts) for each in rows if each.state == JobState.RUNNING}
        open_ = {(each.job_id, each.token, each.number) for each in attempts if each.outcome == ledger.OPEN}
        assert held == open_
        assert {each.id for each in rows if each.state == JobState.SUCCEEDED} <= replies
        # One that is still open keeps an answer that was cut off, until a longer one comes or none does.
        assert not {each.id for each in rows if each.state in _WITHOUT_REPLY} & replies
        for each in rows:
            assert (each.worker_id is not None) == (each.state == JobState.RUNNING)
            assert (each.queued_at is not None) == (each.state == JobState.QUEUED)


_WITHOUT_REPLY = TERMINAL_JOB_STATES - {JobState.SUCCEEDED}
# Workers live as a test says, and one that reports twice of one call may have closed its attempt as failed.
_NOT_HELD_HERE = ("running_with_worker", "replies_without_attempt")


def _assert_counts(row: BatchRow, states: list[JobState]) -> None:
    assert row.total == len(states)
    for state in TERMINAL_JOB_STATES:
        assert getattr(row, state.value) == states.count(state)
    if row.state is BatchState.CANCELING:
        assert not {JobState.PENDING, JobState.QUEUED} & set(states)
    is_over = row.state is not BatchState.ADMITTING and row.done == row.total
    assert (row.state is BatchState.ENDED) == is_over
    assert (row.ended_at is not None) == is_over


def _assert_costs(row: BatchRow, costs: ledger.Costs) -> None:
    assert row.attempts == costs.attempts
    assert row.cost_nanos == costs.cost_nanos
    assert row.unpriced_attempts == costs.unpriced
    assert row.reserved_nanos == costs.reserved_nanos
    assert row.input_tokens == costs.usage.input_tokens
    assert row.output_tokens == costs.usage.output_tokens
    assert row.cache_write_tokens == costs.usage.cache_write_tokens
    assert row.cache_read_tokens == costs.usage.cache_read_tokens


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database.open(database_url)
    yield opened
    opened.close()


@pytest.fixture
def world(database: Database) -> World:
    return World(database)


@pytest.fixture
def world_of() -> Iterator[Callable[[str], World]]:
    """`world_of(url)`: a world in a database of one's choice."""
    opened: list[Database] = []

    def make(url: str) -> World:
        opened.append(Database.open(url))
        return World(opened[-1])

    yield make
    for each in opened:
        each.close()
