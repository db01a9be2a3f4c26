"""A Redis of their own carries the ids: what holds of the one Redis holds of two."""

from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis

from promptmill.clock import SystemClock
from promptmill.embedded import throwaway_redis
from promptmill.routes import ANSWER_QUEUE
from promptmill.states import JobState
from promptmill.store import jobs
from promptmill.testing import a_batch, simulated_claude

Start = Callable[..., Any]
pytestmark = [pytest.mark.chaos, pytest.mark.timeout(120)]


def test_what_was_lost_is_sent_again_and_nothing_is_kept_twice(start_mill: Start, sqlite_url: str) -> None:
    with (
        simulated_claude(first_token_s=0.3) as claude,
        throwaway_redis() as url,
        Redis.from_url(url) as redis,
    ):
        mill = start_mill(
            sqlite_url, claude, quick=True, PROMPTMILL_BROKER_URL=url, PROMPTMILL_CONCURRENCY="8"
        )
        batch = a_batch(mill.database, 60)
        now = SystemClock().now()
        with mill.database.begin() as connection:  # what a dispatcher commits, and nobody publishes
            pending = jobs.select_pending(connection, batch.id, batch.model, 20, now)
            jobs.queue(connection, [each.id for each in pending], now)
        mill.start_worker()
        mill.wait_until(lambda: mill.status(batch.id).jobs[JobState.SUCCEEDED] >= 8, timeout=30)
        assert not redis.exists("unacked")
        assert mill.wait_for_end(batch.id).jobs[JobState.SUCCEEDED] == 60
        assert claude.ledger()["answered"] == {"1": 60}
        assert redis.exists(f"_kombu.binding.{ANSWER_QUEUE}")
    assert "lost_ids_put_back" in mill.logs()
