"""Several worker processes, on one machine or on many: one queue, one limit, one leader."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis

from promptmill.routes import DISPATCHER_LOCK
from promptmill.states import JobState
from promptmill.store import ledger
from promptmill.store import workers as store_workers
from promptmill.store.database import database_now
from promptmill.testing import a_batch, simulated_claude

Start = Callable[..., Any]
pytestmark = pytest.mark.timeout(180)

LIMIT = "3000"
"""Requests a minute: 50 a second, of which calls of 0.1 s keep five in flight. The limiter begins with a fifth of it."""


def test_three_processes_share_a_batch_and_one_limit_and_one_of_them_leads(
    start_mill: Start, sqlite_url: str
) -> None:
    with simulated_claude(rpm=float(LIMIT), first_token_s=0.1) as claude:
        mill = start_mill(sqlite_url, claude, PROMPTMILL_RPM=LIMIT, PROMPTMILL_CONCURRENCY="3")
        for _ in range(3):
            mill.start_worker()
        mill.wait_until(lambda: live_workers(mill) == 3, timeout=60)
        batch = a_batch(mill.database, 40)
        assert mill.wait_for_end(batch.id).jobs[JobState.SUCCEEDED] == 40
        served = claude.ledger()

    assert (served["answered"], served["refused"]["total"]) == ({"1": 40}, 0)
    with mill.database.read() as connection:
        shares = Counter(each.worker_id for each in ledger.attempts_of(connection, batch_id=batch.id))
    assert len(shares) == 3
    with Redis.from_url(mill.environment["PROMPTMILL_REDIS_URL"], decode_responses=True) as redis:
        [lock] = redis.keys(f"{DISPATCHER_LOCK}*")
        assert redis.get(lock) in shares


def live_workers(mill: Any) -> int:
    with mill.database.read() as connection:
        return len(store_workers.live(connection, database_now(connection)))
