"""What a person says about a running batch acts within two seconds, and outlives the workers that heard it."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

import producers
from promptmill.clock import SystemClock
from promptmill.settings import Settings
from promptmill.states import JobState
from promptmill.store import ledger, workers
from promptmill.store.database import database_now
from promptmill.testing import a_batch, simulated_claude

Start = Callable[..., Any]
pytestmark = pytest.mark.timeout(180)

ACTS_WITHIN_S = 2.0


def handle(mill: Any, made: Any) -> "producers.Batch":
    """The batch as a program upstream holds it."""
    settings = Settings(
        database_url=mill.environment["PROMPTMILL_DATABASE_URL"],
        redis_url=mill.environment["PROMPTMILL_REDIS_URL"],
        home=mill.folder / "home",
    )
    return producers.batch(made.id, settings=settings)


def now_of(mill: Any) -> Any:
    with mill.database.read() as connection:
        return database_now(connection)


def live(mill: Any) -> Any:
    with mill.database.read() as connection:
        return workers.live(connection, database_now(connection))


def begun(mill: Any, made: Any, after: Any) -> list[Any]:
    """The attempts that were opened after a moment."""
    with mill.database.read() as connection:
        attempts = ledger.attempts_of(connection, batch_id=made.id)
    return [each for each in attempts if each.opened_at > after]


def test_a_pause_stops_calls_and_a_resume_begins_them_within_two_seconds(
    start_mill: Start, database_url: str
) -> None:
    with simulated_claude(first_token_s=0.1) as claude:
        mill = start_mill(database_url, claude, PROMPTMILL_RPM="1200")
        made = a_batch(mill.database, 400)
        mill.start_worker()
        mill.wait_until(lambda: mill.status(made.id).jobs[JobState.SUCCEEDED] >= 20, timeout=60)
        batch = handle(mill, made)
        batch.pause()
        paused = now_of(mill)
        mill.wait_until(lambda: mill.status(made.id).jobs[JobState.RUNNING] == 0, timeout=ACTS_WITHIN_S)
        over = time.monotonic() + ACTS_WITHIN_S
        mill.wait_until(lambda: time.monotonic() > over, timeout=10)
        assert begun(mill, made, paused + timedelta(seconds=0.2)) == []
        batch.resume()
        resumed = now_of(mill)
        mill.wait_until(lambda: begun(mill, made, resumed), timeout=ACTS_WITHIN_S)


@pytest.mark.chaos
def test_a_pause_and_new_terms_outlive_the_workers(start_mill: Start, sqlite_url: str) -> None:
    with simulated_claude(first_token_s=0.1) as claude:
        mill = start_mill(sqlite_url, claude, quick=True, PROMPTMILL_RPM="1200")
        made = a_batch(mill.database, 60)
        first = mill.start_worker()
        mill.wait_until(lambda: mill.status(made.id).jobs[JobState.SUCCEEDED] >= 10, timeout=60)
        batch = handle(mill, made)
        batch.pause()
        batch.set(priority="high", deadline="3d")
        first.kill()
        first.wait()
        mill.let_the_lock_run_out()
        killed = now_of(mill)
        mill.start_worker()
        mill.wait_until(lambda: any(each.started_at > killed for each in live(mill)), timeout=30)
        over = time.monotonic() + ACTS_WITHIN_S
        mill.wait_until(lambda: time.monotonic() > over, timeout=10)
        row = batch.status().batch
        assert (row.state, row.priority) == ("paused", 10.0)
        assert begun(mill, made, killed) == []
        batch.resume()
        assert mill.wait_for_end(made.id).jobs[JobState.SUCCEEDED] == 60


def test_a_cancel_lets_what_runs_finish_and_be_recorded(start_mill: Start, postgres_first_url: str) -> None:
    with simulated_claude(faults=[{"kind": "hold"}]) as claude:
        mill = start_mill(postgres_first_url, claude, PROMPTMILL_CONCURRENCY="10")
        made = a_batch(mill.database, 100)
        mill.start_worker()
        mill.wait_until(lambda: claude.ledger()["in_flight"] == 10, timeout=60)
        handle(mill, made).cancel()
        claude.set_scenario()
        status = mill.wait_for_end(made.id, timeout=30)
        assert status.jobs[JobState.SUCCEEDED] == claude.ledger()["served"]["answers"] == 10
        assert status.jobs[JobState.CANCELED] == 90
        assert status.batch.cost_nanos == claude.ledger()["billed"]["cost_nanos"]


@pytest.mark.chaos
def test_another_priority_acts_within_two_seconds(start_mill: Start, sqlite_url: str) -> None:
    with simulated_claude(first_token_s=0.1) as claude:
        mill = start_mill(sqlite_url, claude, PROMPTMILL_RPM="2400")
        one, other = a_batch(mill.database, 600), a_batch(mill.database, 600)
        mill.start_worker()
        # Past the gentle start the window is two seconds of calls.
        mill.wait_until(lambda: mill.status(other.id).jobs[JobState.SUCCEEDED] >= 140, timeout=60)
        handle(mill, other).set(priority=20)
        acted = now_of(mill) + timedelta(seconds=ACTS_WITHIN_S)
        mill.wait_until(lambda: len(begun(mill, other, acted)) >= 60, timeout=30)
        theirs, ours = len(begun(mill, one, acted)), len(begun(mill, other, acted))
    assert ours > 5 * theirs, (ours, theirs)


def test_a_nearer_deadline_ends_what_waits_within_two_seconds(start_mill: Start, sqlite_url: str) -> None:
    with simulated_claude(first_token_s=0.1) as claude:
        mill = start_mill(sqlite_url, claude, PROMPTMILL_RPM="300")
        made = a_batch(mill.database, 300, deadline=SystemClock().now() + timedelta(days=1))
        mill.start_worker()
        mill.wait_until(lambda: mill.status(made.id).jobs[JobState.SUCCEEDED] >= 5, timeout=60)
        batch = handle(mill, made)
        batch.set(deadline="1s")
        status = mill.wait_for_end(made.id, timeout=1 + 2 * ACTS_WITHIN_S)
        assert status.jobs[JobState.EXPIRED] + status.jobs[JobState.SUCCEEDED] == 300
        assert status.jobs[JobState.EXPIRED] > 200
        batch.set(deadline="none")
        revived = now_of(mill)
        assert batch.retry() == status.jobs[JobState.EXPIRED]
        mill.wait_until(lambda: begun(mill, made, revived), timeout=ACTS_WITHIN_S)


def test_what_failed_is_retried_and_paid_once(start_mill: Start, database_url: str) -> None:
    with simulated_claude(
        faults=[{"kind": "server_error", "status": 400, "text": "What is 7 + 7?"}]
    ) as claude:
        mill = start_mill(
            database_url, claude, PROMPTMILL_WORKER__MAX_ATTEMPTS="2", PROMPTMILL_WORKER__OUTAGE_S="0"
        )
        made = a_batch(mill.database, 30)
        mill.start_worker()
        assert mill.wait_for_end(made.id).jobs[JobState.ERRORED] == 1
        claude.set_scenario()
        assert handle(mill, made).retry() == 1
        status = mill.wait_for_end(made.id)
        assert (status.jobs[JobState.SUCCEEDED], status.batch.errored) == (30, 0)
        assert claude.ledger()["answered"] == {"1": 30}
        assert status.batch.cost_nanos == claude.ledger()["billed"]["cost_nanos"]


def test_an_answer_that_was_cut_off_is_asked_again_with_more_room(
    start_mill: Start, database_url: str
) -> None:
    with simulated_claude(faults=[{"kind": "answer", "output_tokens": 150}]) as claude:
        mill = start_mill(database_url, claude)
        policy = {"truncated": {"ask_again_up_to": 180}}
        made, kept = a_batch(mill.database, 8, options=policy), a_batch(mill.database, 4)
        mill.start_worker()
        grown, as_it_is = mill.wait_for_end(made.id), mill.wait_for_end(kept.id)
        billed = claude.ledger()["billed"]["cost_nanos"]
    assert (grown.failures, as_it_is.failures) == ({"truncated": 8}, {})
    assert grown.batch.cost_nanos + as_it_is.batch.cost_nanos == billed
    reasons = {
        of.id: {(each.message or {})["stop_reason"] for each in producers.results(handle(mill, of))}
        for of in (made, kept)
    }
    assert reasons == {made.id: {"end_turn"}, kept.id: {"max_tokens"}}
