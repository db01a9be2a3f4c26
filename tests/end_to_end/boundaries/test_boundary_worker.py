"""A worker process is killed, or frozen and thawed, at each place on the way of its jobs."""

import signal
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from promptmill.states import JobState
from promptmill.store import ledger
from promptmill.testing import a_batch, simulated_claude

Start = Callable[..., Any]

SQLITE, POSTGRES = "sqlite", "postgres"
LONGER = pytest.mark.chaos  # the other half of the combinations, for who has the time

ONE_A_SECOND = {"PROMPTMILL_RPM": "60", "PROMPTMILL_WORKER__PATIENCE_S": "5"}
HELD = [{"kind": "hold"}]
"""No call ends before the test says so, with `set_scenario()`."""


def outcomes_of(mill: Any, batch: Any) -> Counter[str]:
    return Counter(each.outcome for each in mill.attempts(batch.id))


@LONGER
def test_killed_while_its_jobs_wait_for_a_permit(start_mill: Start, sqlite_url: str) -> None:
    with simulated_claude() as claude:
        mill = start_mill(sqlite_url, claude)
        first = mill.start_worker(**ONE_A_SECOND)
        batch = a_batch(mill.database, 8)
        mill.wait_until(lambda: mill.taken(batch.id) and mill.count(batch.id, JobState.SUCCEEDED), 30)
        mill.kill(first)
        mill.let_the_lock_run_out()
        mill.start_worker()
        mill.settle(batch, succeeded=8)
        assert claude.ledger()["answered"] == {"1": 8}


def test_killed_with_permits_in_hand_and_nothing_begun(start_mill: Start, postgres_url: str) -> None:
    with simulated_claude() as claude:
        mill = start_mill(postgres_url, claude)
        worker = mill.start_worker()
        with mill.locked("attempt"):
            batch = a_batch(mill.database, 10)
            mill.wait_until(lambda: mill.permits().total() == 10, timeout=30)
            mill.kill(worker)
        assert (mill.attempts(batch.id), mill.count(batch.id, JobState.QUEUED)) == ([], 10)
        mill.let_the_lock_run_out()
        mill.start_worker()
        mill.settle(batch, succeeded=10)
        assert claude.ledger()["answered"] == {"1": 10}


@pytest.mark.parametrize("database_url", [SQLITE, pytest.param(POSTGRES, marks=LONGER)], indirect=True)
def test_killed_between_the_reply_and_its_commit(start_mill: Start, database_url: str) -> None:
    with simulated_claude(faults=HELD) as claude:
        mill = start_mill(database_url, claude)
        worker = mill.start_worker()
        batch = a_batch(mill.database, 10)
        mill.wait_until(lambda: claude.ledger()["in_flight"] == 10, timeout=30)
        with mill.locked():
            claude.set_scenario()
            mill.wait_until(lambda: claude.ledger()["billed"]["answers"] == 10)
            mill.kill(worker)
        mill.let_the_lock_run_out()
        mill.start_worker()
        status = mill.settle(batch, succeeded=10)
        assert outcomes_of(mill, batch) == {ledger.LOST: 10, ledger.SUCCEEDED: 10}
        assert status.batch.unpriced_attempts == 10
        assert claude.ledger()["answered"] == {"2": 10}  # nobody can know; it is said how many


def test_frozen_alone_and_thawed_it_goes_on_as_if_nothing_had_been(
    start_mill: Start, sqlite_url: str
) -> None:
    with simulated_claude(faults=HELD) as claude:
        mill = start_mill(sqlite_url, claude)
        worker = mill.start_worker()
        batch = a_batch(mill.database, 30)
        mill.wait_until(lambda: claude.ledger()["in_flight"] == 20, timeout=30)
        worker.send_signal(signal.SIGSTOP)
        claude.set_scenario()
        mill.wait_until(lambda: mill.silent_for(worker) > 2.5)  # dead after 1.5
        worker.send_signal(signal.SIGCONT)
        mill.settle(batch, succeeded=30)
        assert outcomes_of(mill, batch) == {ledger.SUCCEEDED: 30}
        assert claude.ledger()["answered"] == {"1": 30}


@pytest.mark.parametrize(
    ("database_url", "granted_meanwhile"),
    [
        (SQLITE, True),
        (POSTGRES, False),
        pytest.param(SQLITE, False, marks=LONGER),
        pytest.param(POSTGRES, True, marks=LONGER),
    ],
    indirect=["database_url"],
)
def test_frozen_given_up_and_thawed_its_late_answers_are_taken_unless_another_was_granted_the_job(
    start_mill: Start, database_url: str, granted_meanwhile: bool
) -> None:
    with simulated_claude(faults=HELD) as claude:
        mill = start_mill(database_url, claude)
        frozen = mill.start_worker()
        batch = a_batch(mill.database, 10)
        mill.wait_until(lambda: claude.ledger()["in_flight"] == 10, timeout=30)
        mill.freeze(frozen)
        claude.set_scenario()
        mill.let_the_lock_run_out()
        if not granted_meanwhile:
            mill.pause(batch.id)
        mill.start_worker()
        mill.wait_until(lambda: outcomes_of(mill, batch)[ledger.LOST] == 10, timeout=30)
        if granted_meanwhile:
            mill.wait_until(lambda: mill.status(batch.id).batch.state == "ended", timeout=30)
        frozen.send_signal(signal.SIGCONT)
        mill.wait_until(lambda: not outcomes_of(mill, batch)[ledger.LOST], timeout=30)
        status = mill.settle(batch, succeeded=10)
        calls = 2 if granted_meanwhile else 1
        assert outcomes_of(mill, batch) == {ledger.SUCCEEDED: 10 * calls}
        assert claude.ledger()["answered"] == {str(calls): 10}
        assert (status.batch.unpriced_attempts, status.batch.cost_nanos) == (
            0,
            claude.ledger()["billed"]["cost_nanos"],
        )
