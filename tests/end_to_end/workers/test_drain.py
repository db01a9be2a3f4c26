"""How workers end: what runs finishes, or is handed back at once when somebody insists; nothing is lost or repeated."""

import signal
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from promptmill.states import JobState
from promptmill.store import ledger
from promptmill.store import workers as store_workers
from promptmill.store.database import database_now
from promptmill.testing import a_batch, simulated_claude

Start = Callable[..., Any]
pytestmark = pytest.mark.timeout(180)


def _live(mill: Any) -> int:
    with mill.database.read() as connection:
        return len(store_workers.live(connection, database_now(connection)))


@pytest.mark.parametrize(
    ("number", "database_url"),
    [
        (signal.SIGTERM, "sqlite"),
        (signal.SIGINT, "postgres"),
        pytest.param(signal.SIGTERM, "postgres", marks=pytest.mark.chaos),
        pytest.param(signal.SIGINT, "sqlite", marks=pytest.mark.chaos),
    ],
    indirect=["database_url"],
)
def test_a_second_signal_hands_the_running_jobs_back_at_once(
    start_mill: Start, database_url: str, number: signal.Signals
) -> None:
    with simulated_claude(faults=[{"kind": "hold"}]) as claude:
        mill = start_mill(database_url, claude, PROMPTMILL_CONCURRENCY="20")
        batch = a_batch(mill.database, 60)
        worker = mill.start_worker()
        mill.wait_until(lambda: claude.ledger()["in_flight"] == 20, timeout=60)
        worker.send_signal(number)
        mill.wait_until(lambda: not mill.is_led(), timeout=30)  # two that come together count as one
        with pytest.raises(subprocess.TimeoutExpired):
            worker.wait(1)
        worker.send_signal(number)
        worker.wait(60)  # the calls would never end
        status = mill.status(batch.id)
    assert status.jobs[JobState.PENDING] + status.jobs[JobState.QUEUED] == 60
    assert status.jobs[JobState.RUNNING] == 0
    assert status.failures == {"interrupted": 20}
    assert status.batch.unpriced_attempts == 20, "sent, and nobody can know whether they were billed"
    assert _live(mill) == 0


def test_restarting_all_workers_one_by_one_loses_nothing_and_repeats_nothing(
    start_mill: Start, postgres_first_url: str
) -> None:
    with simulated_claude(first_token_s=0.5) as claude:
        mill = start_mill(postgres_first_url, claude, PROMPTMILL_CONCURRENCY="10")
        batch = a_batch(mill.database, 400)
        old = [mill.start_worker() for _ in range(3)]
        mill.wait_until(lambda: mill.status(batch.id).jobs[JobState.SUCCEEDED] >= 20, timeout=60)
        for worker in old:
            worker.terminate()
            assert worker.wait(60) == 0
            mill.start_worker()
        status = mill.wait_for_end(batch.id, timeout=90)
        billed = claude.ledger()
    assert billed["answered"] == {"1": 400}
    assert status.jobs[JobState.SUCCEEDED] == 400
    assert status.batch.attempts == 400, "nothing was begun twice"
    assert status.batch.cost_nanos == billed["billed"]["cost_nanos"]
    with mill.database.read() as connection:
        assert ledger.costs(connection, batch.id).open == 0
