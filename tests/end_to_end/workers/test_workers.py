"""Worker processes as they are started: batches are answered, exactly, whatever ends or fails."""

import signal
from collections.abc import Callable
from typing import Any

import pytest

from promptmill.clock import SystemClock
from promptmill.states import JobState
from promptmill.store import control, ledger, results
from promptmill.store import workers as store_workers
from promptmill.store.database import database_now
from promptmill.testing import a_batch, a_prompt, simulated_claude

Start = Callable[..., Any]
pytestmark = pytest.mark.timeout(180)


def test_every_prompt_is_answered_once_and_the_cost_is_the_ledgers(
    start_mill: Start, database_url: str
) -> None:
    with simulated_claude() as claude:
        mill = start_mill(database_url, claude)
        batch = a_batch(mill.database, 120)
        mill.start_worker()
        status = mill.wait_for_end(batch.id)
        billed = claude.ledger()
    assert status.jobs[JobState.SUCCEEDED] == 120
    assert billed["answered"] == {"1": 120}
    assert status.batch.cost_nanos == billed["billed"]["cost_nanos"] > 0
    assert status.batch.input_tokens == billed["billed"]["usage"]["input_tokens"]
    assert status.batch.output_tokens == billed["billed"]["usage"]["output_tokens"]
    with mill.database.read() as connection:
        assert ledger.costs(connection, batch.id).cost_nanos == status.batch.cost_nanos


@pytest.mark.chaos
def test_kill_9_of_one_of_three_workers_loses_no_job_and_answers_none_twice(
    start_mill: Start, postgres_first_url: str
) -> None:
    with simulated_claude(first_token_s=0.4) as claude:
        mill = start_mill(postgres_first_url, claude, quick=True, PROMPTMILL_CONCURRENCY="10")
        batch = a_batch(mill.database, 150)
        first, *_ = [mill.start_worker() for _ in range(3)]
        mill.wait_until(lambda: mill.status(batch.id).jobs[JobState.SUCCEEDED] >= 30, timeout=60)
        first.kill()
        status = mill.wait_for_end(batch.id, timeout=90)
        twice = sum(count for times, count in claude.ledger()["answered"].items() if times != "1")
    assert status.jobs[JobState.SUCCEEDED] == 150
    with mill.database.read() as connection:
        attempts = ledger.attempts_of(connection, batch_id=batch.id)
    succeeded = [attempt.job_id for attempt in attempts if attempt.outcome == ledger.SUCCEEDED]
    assert len(succeeded) == len(set(succeeded)) == 150
    lost = [attempt for attempt in attempts if attempt.outcome == ledger.LOST]
    assert twice <= len(lost) <= 10


def test_sigterm_finishes_what_was_sent_and_hands_the_rest_back(start_mill: Start, database_url: str) -> None:
    with simulated_claude(faults=[{"kind": "hold"}]) as claude:
        mill = start_mill(database_url, claude, PROMPTMILL_CONCURRENCY="20")
        batch = a_batch(mill.database, 100)
        worker = mill.start_worker()
        mill.wait_until(lambda: claude.ledger()["in_flight"] == 20, timeout=60)
        worker.terminate()
        mill.wait_until(lambda: not mill.is_led(), timeout=30)
        claude.set_scenario()
        assert worker.wait(60) == 0
        status = mill.status(batch.id)
        assert status.jobs[JobState.RUNNING] == 0
        assert status.jobs[JobState.SUCCEEDED] == claude.ledger()["served"]["answers"] == 20
        mill.start_worker()
        assert mill.wait_for_end(batch.id).jobs[JobState.SUCCEEDED] == 100
        assert claude.ledger()["answered"] == {"1": 100}


def test_overloads_errors_and_resets_are_tried_again(start_mill: Start, sqlite_url: str) -> None:
    faults = [
        {"kind": "overloaded", "nth": 3},
        {"kind": "server_error", "nth": 5},
        {"kind": "reset", "nth": 7},
    ]
    with simulated_claude(faults=faults) as claude:
        mill = start_mill(sqlite_url, claude)
        batch = a_batch(mill.database, 20)
        mill.start_worker()
        status = mill.wait_for_end(batch.id)
        billed = claude.ledger()["billed"]["cost_nanos"]
    assert status.jobs[JobState.SUCCEEDED] == 20
    assert sum(status.failures.values()) == 3
    assert status.batch.cost_nanos == billed
    assert status.batch.unpriced_attempts == 1, "nobody can know what the reset call cost"


def test_a_rejected_prompt_fails_alone_and_says_why(start_mill: Start, sqlite_url: str) -> None:
    with simulated_claude() as claude:
        mill = start_mill(sqlite_url, claude)
        batch = a_batch(mill.database, [a_prompt(), a_prompt(model="claude-sonnet-5", max_tokens=10_000_000)])
        mill.start_worker()
        status = mill.wait_for_end(batch.id)
    assert (status.jobs[JobState.SUCCEEDED], status.jobs[JobState.ERRORED]) == (1, 1)
    with mill.database.read() as connection:
        errored = [row for row in results.iterate(connection, batch.id) if row.state is JobState.ERRORED]
    assert errored[0].error is not None
    assert (errored[0].error.kind, errored[0].error.status) == ("prompt_rejected", 400)


def test_a_wrong_key_pauses_the_batch_with_the_reason_and_loses_nothing(
    start_mill: Start, sqlite_url: str
) -> None:
    with simulated_claude(only_known_keys=True, organizations={"ours": ["sk-right"]}) as claude:
        mill = start_mill(sqlite_url, claude, ANTHROPIC_API_KEY="sk-wrong", PROMPTMILL_CONCURRENCY="5")
        batch = a_batch(mill.database, 10)
        worker = mill.start_worker()
        mill.wait_until(lambda: mill.status(batch.id).batch.state == "paused", timeout=60)
        assert "default" in str(mill.status(batch.id).batch.reason)
        worker.terminate()
        worker.wait(60)
        mill.wait_until(lambda: mill.status(batch.id).jobs[JobState.PENDING] == 10)
        with mill.database.begin() as connection:
            control.resume(connection, batch.id, SystemClock().now())
        mill.start_worker(ANTHROPIC_API_KEY="sk-right")
        assert mill.wait_for_end(batch.id).jobs[JobState.SUCCEEDED] == 10
    assert "sk-wrong" not in mill.logs()


def test_without_a_key_the_batch_is_paused_and_says_what_to_set(start_mill: Start, sqlite_url: str) -> None:
    with simulated_claude() as claude:
        mill = start_mill(sqlite_url, claude)
    del mill.environment["ANTHROPIC_BASE_URL"]  # the real API, which is never called without a key
    batch = a_batch(mill.database, 3, endpoint="https://api.anthropic.com", simulated=False)
    mill.start_worker()
    mill.wait_until(lambda: mill.status(batch.id).batch.state == "paused", timeout=60)
    assert "no key is set" in str(mill.status(batch.id).batch.reason)
    assert mill.status(batch.id).batch.attempts == 0


def test_a_batch_for_the_real_claude_is_not_answered_by_a_simulated_one(
    start_mill: Start, sqlite_url: str
) -> None:
    with simulated_claude() as claude:
        mill = start_mill(sqlite_url, claude)
        real = a_batch(mill.database, 3, endpoint="https://api.anthropic.com", simulated=False)
        other = a_batch(mill.database, 3)
        mill.start_worker()
        mill.wait_for_end(other.id)
        assert mill.status(real.id).jobs[JobState.PENDING] == 3
        assert claude.ledger()["requests"] == 3


@pytest.mark.chaos
def test_a_configured_limit_is_never_exceeded_by_three_processes(start_mill: Start, sqlite_url: str) -> None:
    with simulated_claude(rpm=1200, burst_s=1) as claude:
        mill = start_mill(sqlite_url, claude, PROMPTMILL_RPM="1200")
        batch = a_batch(mill.database, 150)
        for _ in range(3):
            mill.start_worker()
        status = mill.wait_for_end(batch.id, timeout=120)
        refused = claude.ledger()["refused"]["total"]
    assert status.jobs[JobState.SUCCEEDED] == 150
    assert refused == 0


def test_a_worker_signs_in_and_signs_off(start_mill: Start, sqlite_url: str) -> None:
    with simulated_claude() as claude:
        mill = start_mill(sqlite_url, claude)

        def live() -> int:
            with mill.database.read() as connection:
                return len(store_workers.live(connection, database_now(connection)))

        batch = a_batch(mill.database, 1)
        worker = mill.start_worker()
        mill.wait_for_end(batch.id)
        assert live() == 1
        worker.terminate()
        worker.wait(60)
        assert live() == 0


def test_sigquit_hands_the_running_jobs_back_at_once(start_mill: Start, sqlite_url: str) -> None:
    with simulated_claude(faults=[{"kind": "hold"}]) as claude:
        mill = start_mill(sqlite_url, claude, PROMPTMILL_CONCURRENCY="5")
        batch = a_batch(mill.database, 5)
        worker = mill.start_worker()
        mill.wait_until(lambda: claude.ledger()["in_flight"] == 5, timeout=60)
        worker.send_signal(signal.SIGQUIT)
        worker.wait(60)
        status = mill.status(batch.id)
    assert status.jobs[JobState.PENDING] + status.jobs[JobState.QUEUED] == 5
    assert status.failures == {"interrupted": 5}
    assert status.batch.unpriced_attempts == 5
