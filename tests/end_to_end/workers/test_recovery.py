"""A worker that is killed: its jobs begin again within 15 s at the settings that are shipped, whoever it was.

And a job that ends every worker it comes to does not go round for ever.
"""

import os
import signal
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
from redis import Redis

from promptmill.routes import DISPATCHER_LOCK
from promptmill.states import JobState
from promptmill.store import ledger, results
from promptmill.store import workers as store_workers
from promptmill.store.database import database_now
from promptmill.testing import a_batch, simulated_claude

Start = Callable[..., Any]
pytestmark = pytest.mark.timeout(180)

PROMISED_S = 15.0


def _pids(mill: Any) -> dict[str, int]:
    """The live workers and their processes."""
    with mill.database.read() as connection:
        return {each.id: each.pid for each in store_workers.live(connection, database_now(connection))}


def _leader(mill: Any, redis: "Redis") -> str | None:
    held = redis.get(f"{DISPATCHER_LOCK}simulated")
    return held.decode() if isinstance(held, bytes) and held.decode() in _pids(mill) else None


def _attempts(mill: Any, batch_id: str) -> list[ledger.AttemptRow]:
    with mill.database.read() as connection:
        return list(ledger.attempts_of(connection, batch_id=batch_id))


@pytest.mark.parametrize(
    ("killed", "database_url"),
    [
        ("the leader", "postgres"),
        pytest.param("a follower", "sqlite", marks=pytest.mark.chaos),
        pytest.param("the leader", "sqlite", marks=pytest.mark.chaos),
        pytest.param("a follower", "postgres", marks=pytest.mark.chaos),
    ],
    indirect=["database_url"],
)
def test_the_jobs_of_a_killed_worker_begin_again_within_15_s(
    start_mill: Start, database_url: str, clean_redis: str, killed: str
) -> None:
    with simulated_claude(first_token_s=120) as claude, Redis.from_url(clean_redis) as redis:
        mill = start_mill(database_url, claude, PROMPTMILL_CONCURRENCY="24")  # room for what is lost
        for _ in range(2):
            mill.start_worker()
        mill.wait_until(lambda: len(_pids(mill)) == 2 and _leader(mill, redis), timeout=60)
        batch = a_batch(mill.database, 12)
        mill.wait_until(lambda: mill.status(batch.id).jobs[JobState.RUNNING] == 12, timeout=60)
        leader = _leader(mill, redis)
        victim = next(each for each in _pids(mill) if (each == leader) is (killed == "the leader"))
        batches = [batch.id]
        while not (lost := _jobs_of(mill, victim, batches)):  # the other was faster, twelve times
            batches.append(a_batch(mill.database, 1).id)
            mill.wait_until(lambda: mill.status(batches[-1]).jobs[JobState.RUNNING], timeout=60)
        os.kill(_pids(mill)[victim], signal.SIGKILL)
        mill.wait_until(lambda: _begun_again(mill, batches), timeout=PROMISED_S)
        assert _begun_again(mill, batches) <= lost


def _jobs_of(mill: Any, worker_id: str, batches: Sequence[str]) -> set[str]:
    return {each.job_id for of in batches for each in _attempts(mill, of) if each.worker_id == worker_id}


def _begun_again(mill: Any, batches: Sequence[str]) -> set[str]:
    return {each.job_id for of in batches for each in _attempts(mill, of) if each.number > 1}


def test_a_job_that_ends_every_worker_it_comes_to_is_given_up_and_the_others_are_answered(
    start_mill: Start, database_url: str
) -> None:
    with simulated_claude(faults=[{"kind": "hold", "text": "What is 0 + 0?"}]) as claude:
        mill = start_mill(
            database_url, claude, quick=True, PROMPTMILL_CONCURRENCY="1", PROMPTMILL_WORKER__MAX_LOSSES="2"
        )
        batch = a_batch(mill.database, 4)
        with mill.database.read() as connection:
            poison = next(iter(results.iterate(connection, batch.id))).job_id  # its call lasts until the kill

        def is_being_tried(times: int) -> bool:
            open_now = [each for each in _attempts(mill, batch.id) if each.outcome == ledger.OPEN]
            return any(each.job_id == poison and each.number == times for each in open_now)

        for times in (1, 2):
            worker = mill.start_worker()
            mill.wait_until(partial(is_being_tried, times), timeout=60)
            worker.kill()
            worker.wait()
            mill.let_the_lock_run_out()
        mill.start_worker()
        status = mill.wait_for_end(batch.id)
        with mill.database.read() as connection:
            errored = [row for row in results.iterate(connection, batch.id) if row.state is JobState.ERRORED]
    assert status.jobs[JobState.SUCCEEDED] == 3
    assert [(row.job_id, row.error.kind) for row in errored if row.error] == [(poison, ledger.LOST)]
