"""A process takes back what the database believes it to work on and it does not, and nothing else."""

from collections.abc import Iterator

import pytest
from redis import Redis

from promptmill.clock import SystemClock
from promptmill.routes import PUT_RIGHT
from promptmill.states import JobState
from promptmill.store import jobs, leases, ledger, workers
from promptmill.store.database import Database, database_now
from promptmill.testing import a_batch
from tests.claims import a_claim
from workers.permits import WatchedLimiter
from workers.put_right import Fault, PutRight
from workers.reconciliation import Reconciliation

GROUP = "claude-sonnet-5"


@pytest.fixture
def database(sqlite_url: str) -> Iterator[Database]:
    database = Database.open(sqlite_url)
    yield database
    database.close()


def begun(database: Database, worker_id: str, count: int) -> list[str]:
    """Jobs that a worker has begun."""
    batch, now = a_batch(database, count), SystemClock().now()
    new = workers.NewWorker(id=worker_id, host="h", pid=1, version="0", endpoint="simulated", slots=10)
    with database.begin() as connection:
        workers.register(connection, new, database_now(connection))
        pending = jobs.select_pending(connection, batch.id, GROUP, count, now)
        queued = jobs.queue(connection, [each.id for each in pending], now)
        claims = [a_claim(each, now) for each in queued]
        leases.begin(connection, claims, worker_id, now)
    return [each.job_id for each in queued]


async def test_leases_of_jobs_that_this_process_does_not_know_go_back_and_all_others_stay(
    database: Database, clean_redis: str
) -> None:
    in_hand, forgotten = begun(database, "me", 2)
    (of_another,) = begun(database, "another", 1)
    limiter = WatchedLimiter(clean_redis, process="me")
    with Redis.from_url(clean_redis) as redis:
        reconciliation = Reconciliation(
            database, redis, limiter, "me", on_hand=lambda: [in_hand], put_right=PutRight(redis)
        )
        await reconciliation.compare()
        await reconciliation.compare()
        counted = redis.hgetall(PUT_RIGHT)
    await limiter.aclose()
    with database.read() as connection:
        states = jobs.states_of(connection, [in_hand, forgotten, of_another])
        (attempt,) = ledger.attempts_of(connection, job_id=forgotten)
    assert states == {
        in_hand: JobState.RUNNING,
        forgotten: JobState.PENDING,
        of_another: JobState.RUNNING,
    }
    assert (attempt.outcome, attempt.cost_nanos) == (ledger.ORPHANED, None)
    assert counted == {Fault.ORPHAN_LEASE.encode(): b"1"}
