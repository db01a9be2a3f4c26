"""A database that was away is found again by each process at another time, so nobody is judged at once."""

import time
from collections.abc import Callable
from threading import Event

from promptmill.errors import Unavailable
from promptmill.store.database import Database
from workers.heartbeat import Heartbeat
from workers.timekeeping import DatabaseClock

WaitUntil = Callable[..., None]


def test_who_comes_up_is_steady_from_then_on_and_after_an_outage_only_when_all_can_be_back(
    database: Database, wait_until: WaitUntil
) -> None:
    away, refused_at = Event(), list[float]()

    def running() -> int:
        if away.is_set():
            refused_at.append(time.monotonic())
            raise Unavailable("the database answers nothing")
        return 0

    heartbeat = Heartbeat(database, "w", "simulated", 10, running, DatabaseClock(), every=0.05)
    heartbeat.start()
    wait_until(lambda: heartbeat.steady_for() > 0.2)
    away.set()
    wait_until(lambda: refused_at and heartbeat.steady_for() == 0)
    back_at = time.monotonic()
    away.clear()
    wait_until(lambda: heartbeat.steady_for() > 0)
    assert time.monotonic() - back_at > back_at - refused_at[0]  # its last beat was before
    heartbeat.stop()
