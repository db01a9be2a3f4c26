"""The database's clock jumps: nobody is taken for dead because of it, and nothing waits for the clock to catch up."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import pytest

from promptmill.states import JobState
from promptmill.store import jobs, leases, stats
from promptmill.store import workers as store_workers
from promptmill.store.database import Database, database_now
from promptmill.store.workers import NewWorker
from promptmill.testing import a_batch
from tests.claims import a_claim
from workers.heartbeat import Heartbeat
from workers.reaper import Reaper
from workers.timekeeping import DatabaseClock

HOUR = timedelta(hours=1)


@pytest.fixture
def clock(database: Database) -> DatabaseClock:
    """As a process has it that beats."""
    clock = DatabaseClock()
    with database.read() as connection:
        clock.set(database_now(connection))
    return clock


@pytest.fixture
def a_process(database: Database, clock: DatabaseClock) -> Callable[[str, timedelta], None]:
    """`a_process("w", ago)`: a process that beat so long ago, by the database's clock as it is now, and runs a job."""

    def make(worker_id: str, ago: timedelta) -> None:
        new = NewWorker(id=worker_id, host="h", pid=1, version="0", endpoint="simulated", slots=10)
        with database.begin() as connection:
            store_workers.register(connection, new, database_now(connection) - ago)
        batch = a_batch(database, 1)
        with database.begin() as connection:
            [pending] = jobs.select_pending(connection, batch.id, "claude-sonnet-5", 1, clock.now())
            [queued] = jobs.queue(connection, [pending.id], clock.now())
            leases.begin(connection, [a_claim(queued, DatabaseClock().now())], worker_id, clock.now())

    return make


def a_reaper(database: Database, clock: DatabaseClock, **facts: Any) -> Reaper:
    settings: dict[str, Any] = {
        "present": set,
        "broker_now": lambda: 0.0,
        "hands": dict.fromkeys,
        "steady_for": lambda: 3600.0,
        **facts,
    }
    return Reaper(database=database, clock=clock, **settings)


def test_a_process_whose_own_clock_is_wrong_goes_by_that_of_the_database(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Wrong":
            return cls.fromtimestamp((datetime.now(UTC) + HOUR).timestamp(), tz)

    monkeypatch.setattr("workers.timekeeping.datetime", Wrong)
    clock = DatabaseClock()
    assert clock.now() > datetime.now(UTC) + HOUR / 2
    heartbeat = Heartbeat(database, "w", "simulated", 10, lambda: 0, clock)
    heartbeat.start()
    heartbeat.stop()
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(seconds=30)


def test_nobody_is_dead_because_the_clock_went_forward(
    database: Database, clock: DatabaseClock, a_process: Callable[..., None]
) -> None:
    a_process("alive", HOUR)  # it beat a moment ago, and then an hour passed in no time
    with database.read() as connection:
        clock.set(database_now(connection) - HOUR)
    assert a_reaper(database, clock).sweep() == 0


def test_after_a_jump_everybody_gets_the_time_to_beat(
    database: Database, clock: DatabaseClock, wait_until: Callable[..., None]
) -> None:
    heartbeat = Heartbeat(database, "w", "simulated", 10, lambda: 0, clock, every=0.05)
    heartbeat.start()
    wait_until(lambda: heartbeat.steady_for() > 0.5)

    def is_noticed() -> bool:
        if heartbeat.steady_for() < 0.5:
            return True
        clock.set(clock.now() - HOUR)  # as it looks to a process when the database's clock goes forward
        return False  # a beat that was under way may have set it right without having looked at it

    wait_until(is_noticed)
    heartbeat.stop()


def test_a_dead_process_is_noticed_although_the_clock_went_back(
    database: Database, clock: DatabaseClock, a_process: Callable[..., None]
) -> None:
    a_process("dead", -HOUR)  # its last beat was at a time that is still to come
    assert a_reaper(database, clock).sweep() == 1


def test_a_lost_id_is_noticed_although_the_clock_went_back(database: Database, clock: DatabaseClock) -> None:
    batch = a_batch(database, 1)
    with database.begin() as connection:
        [pending] = jobs.select_pending(connection, batch.id, "claude-sonnet-5", 1, clock.now())
        jobs.queue(connection, [pending.id], clock.now() + HOUR)
    assert a_reaper(database, clock).sweep() == 1
    with database.read() as connection:
        assert stats.status(connection, batch.id, clock.now()).jobs[JobState.PENDING] == 1
