"""A worker notices what is wrong with itself, and puts it right: real processes that fall ill."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from promptmill.claude.keys import rehearsing
from promptmill.clock import SystemClock
from promptmill.dimensions import Amounts
from promptmill.limits import Pool, RedisLimiter
from promptmill.limits.scripts import Keys
from promptmill.routes import PUT_RIGHT
from promptmill.states import JobState
from promptmill.store import jobs, leases, ledger
from promptmill.store import workers as store_workers
from promptmill.store.database import database_now
from promptmill.testing import a_batch, simulated_claude
from tests.claims import a_claim

Start = Callable[..., Any]
pytestmark = pytest.mark.timeout(180)

HERE = Path(__file__).parent
GROUP = "claude-sonnet-5"


def _start_sick(mill: Any, **environment: str) -> Any:
    settings = {"PYTHONPATH": str(HERE), "SICK_FOLDER": str(mill.folder)}
    worker = mill.start_worker(app="sick_worker", **settings, **environment)
    mill.wait_for_end(a_batch(mill.database, 1).id)
    return worker


def _tell(mill: Any, illness: str, happened: str) -> None:
    (mill.folder / illness).touch()
    mill.wait_until((mill.folder / happened).exists, timeout=20)


def _only_worker(mill: Any) -> str:
    with mill.database.read() as connection:
        [worker] = store_workers.live(connection, database_now(connection))
        return str(worker.id)


def test_a_worker_that_is_connected_and_takes_nothing_connects_anew(
    start_mill: Start, sqlite_url: str, clean_redis: str
) -> None:
    with simulated_claude() as claude:
        mill = start_mill(sqlite_url, claude, PROMPTMILL_WORKER__DEAF_AFTER_S="3")
        worker = _start_sick(mill)
        _tell(mill, "deaf", "was-deaf")
        status = mill.wait_for_end(a_batch(mill.database, 5).id)
    assert status.jobs[JobState.SUCCEEDED] == 5
    assert "consumer_takes_nothing" in mill.logs()
    assert worker.poll() is None
    with Redis.from_url(clean_redis) as redis:
        assert redis.hget(PUT_RIGHT, "consumers_that_took_nothing") == b"1"


@pytest.mark.chaos
def test_a_worker_that_stays_deaf_ends_so_that_it_is_started_again(
    start_mill: Start, sqlite_url: str
) -> None:
    with simulated_claude() as claude:
        mill = start_mill(sqlite_url, claude, PROMPTMILL_WORKER__DEAF_AFTER_S="4")
        worker = _start_sick(mill)
        _tell(mill, "stone-deaf", "stays-deaf")
        batch = a_batch(mill.database, 5)
        worker.wait(60)
        mill.start_worker()
        assert mill.wait_for_end(batch.id).jobs[JobState.SUCCEEDED] == 5


def test_a_worker_whose_main_thread_hangs_hands_back_and_ends(start_mill: Start, database_url: str) -> None:
    with simulated_claude(first_token_s=60) as claude:
        mill = start_mill(database_url, claude, PROMPTMILL_WORKER__HUNG_AFTER_S="5")
        settings = {"PYTHONPATH": str(HERE), "SICK_FOLDER": str(mill.folder)}
        worker = mill.start_worker(app="sick_worker", **settings)
        batch = a_batch(mill.database, 5)
        mill.wait_until(lambda: claude.ledger()["in_flight"] == 5, timeout=60)
        _tell(mill, "hang", "hangs")
        assert worker.wait(60) != 0
        status = mill.status(batch.id)
    assert status.jobs[JobState.PENDING] + status.jobs[JobState.QUEUED] == 5
    assert status.failures == {"interrupted": 5}
    with mill.database.read() as connection:
        assert store_workers.live(connection, database_now(connection)) == []
    assert "main_thread_hangs" in mill.logs()


def test_a_lease_of_a_worker_that_knows_nothing_of_it_is_taken_back(
    start_mill: Start, database_url: str, clean_redis: str
) -> None:
    with simulated_claude() as claude:
        mill = start_mill(database_url, claude, PROMPTMILL_WORKER__RECONCILE_S="1")
        mill.start_worker()
        mill.wait_for_end(a_batch(mill.database, 1).id)
        batch = a_batch(mill.database, 2, endpoint="https://elsewhere")  # nobody here dispatches it
        _begin_in_the_name_of(_only_worker(mill), mill, batch.id)
        mill.wait_until(lambda: mill.status(batch.id).jobs[JobState.PENDING] == 2, timeout=20)
    status = mill.status(batch.id)
    assert status.failures == {ledger.ORPHANED: 2}
    assert status.batch.unpriced_attempts == 2
    with Redis.from_url(clean_redis) as redis:  # counted once it is committed
        mill.wait_until(lambda: redis.hget(PUT_RIGHT, "leases_without_a_job") == b"2")


def _begin_in_the_name_of(worker_id: str, mill: Any, batch_id: str) -> None:
    now = SystemClock().now()
    with mill.database.begin() as connection:
        pending = jobs.select_pending(connection, batch_id, GROUP, 10, now)
        queued = jobs.queue(connection, [each.id for each in pending], now)
        claims = [a_claim(each, now) for each in queued]
        leases.begin(connection, claims, worker_id, now)


async def test_a_permit_that_a_worker_never_heard_of_is_given_back(
    start_mill: Start, sqlite_url: str, clean_redis: str
) -> None:
    with simulated_claude() as claude, Redis.from_url(clean_redis) as redis:
        mill = start_mill(sqlite_url, claude, PROMPTMILL_WORKER__RECONCILE_S="1")
        mill.start_worker()
        mill.wait_for_end(a_batch(mill.database, 1).id)
        worker, pool = _only_worker(mill), Pool(rehearsing("default", claude.url), GROUP)
        limiter = RedisLimiter(clean_redis, process=worker)
        await limiter.acquire(pool, Amounts(1, 10, 10), patience=5)
        mill.wait_until(lambda: redis.hget(PUT_RIGHT, "permits_without_a_call") == b"1", timeout=20)
        assert redis.hlen(Keys(pool).permits(worker)) == 0
        await limiter.aclose()
