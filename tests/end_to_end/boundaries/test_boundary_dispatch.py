"""Between the database and the broker: a dispatcher dies before it publishes; messages come twice, never, or forged."""

import json
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from promptmill.broker import Ticket, celery_app, publish
from promptmill.clock import SystemClock
from promptmill.routes import ANSWER_QUEUE, DISPATCHER_VIRTUAL_TIMES
from promptmill.states import JobState
from promptmill.store import jobs
from promptmill.store.batches import BatchRow
from promptmill.store.jobs import QueuedJob
from promptmill.testing import a_batch, simulated_claude

Start = Callable[..., Any]
TIMES = DISPATCHER_VIRTUAL_TIMES + "*"


@pytest.mark.parametrize(
    "database_url", ["sqlite", pytest.param("postgres", marks=pytest.mark.chaos)], indirect=True
)
def test_a_dispatcher_that_dies_between_commit_and_publish_costs_time_only(
    start_mill: Start, database_url: str
) -> None:
    with simulated_claude() as claude:
        mill = start_mill(database_url, claude)
        worker = mill.start_worker()
        mill.wait_until(mill.is_led, timeout=30)
        batch = next(found for _ in range(10) if (found := caught_before_it_publishes(mill, worker)))
        mill.kill(worker)
        mill.redis.kill()  # with what the dead process may still have had on its way to it
        mill.redis.start()
        assert mill.count(batch.id, JobState.QUEUED) > 0

        mill.start_worker()
        status = mill.settle(batch, succeeded=30)
        assert (status.batch.attempts, claude.ledger()["answered"]) == (30, {"1": 30})


def test_messages_that_come_twice_never_or_forged_begin_each_job_once(
    start_mill: Start, sqlite_url: str
) -> None:
    with simulated_claude() as claude:
        mill = start_mill(sqlite_url, claude)
        batch = a_batch(mill.database, 30)
        queued = queue_all(mill, batch.id)
        twice, once = queued[:10], queued[10:20]  # and the other ten never
        app = celery_app(mill.redis.url)
        publish(app, [ticket(job) for job in [*twice, *once, *twice, *twice]])
        publish(app, [ticket(job, dispatch=number) for job in once for number in (0, 2, -1, 2**70)])
        publish(app, [Ticket(job_id="job_forged", dispatch=1, batch="b", model="m", attempt=1)])
        app.close()
        damage(mill, json.dumps({"prompt": "no envelope"}), "no JSON", "[]", "")

        mill.start_worker()
        status = mill.settle(batch, succeeded=30)
        assert (status.batch.attempts, claude.ledger()["answered"]) == (30, {"1": 30})
        assert mill.workers[0].poll() is None


def caught_before_it_publishes(mill: Any, worker: Any) -> BatchRow | None:
    """A batch whose jobs are committed as queued, by a dispatcher that cannot publish: its Redis stands still.

    None when it was busy with something else.
    """
    with mill.redis.client() as redis:
        mill.freeze(worker)
        mill.claude.reset()
        redis.delete(*redis.keys(TIMES) or ["none"])
        batch = a_batch(mill.database, 30)
        with mill.locked():
            worker.send_signal(signal.SIGCONT)
            give_up_at = time.monotonic() + 1.5
            # Written just before the commit, which now waits for the lock.
            while not redis.keys(TIMES) and time.monotonic() < give_up_at:
                time.sleep(0.01)
            if caught := bool(redis.keys(TIMES)):
                mill.redis.signal(signal.SIGSTOP)
    if not caught:
        mill.settle(batch, succeeded=30)
        return None
    mill.wait_until(lambda: mill.count(batch.id, JobState.QUEUED) > 0)
    return batch


def queue_all(mill: Any, batch_id: str) -> list[QueuedJob]:
    """What a dispatcher commits, published by nobody."""
    now = SystemClock().now()
    with mill.database.begin() as connection:
        pending = jobs.select_pending(connection, batch_id, "claude-sonnet-5", 100, now)
        return jobs.queue(connection, [job.id for job in pending], now)


def ticket(job: QueuedJob, dispatch: int | None = None) -> Ticket:
    number = job.dispatch if dispatch is None else dispatch
    return Ticket(job_id=job.job_id, dispatch=number, batch=job.batch, model=job.model, attempt=1)


def damage(mill: Any, *entries: str) -> None:
    """Put entries among the messages that no program of ours would write."""
    with mill.redis.client() as redis:
        for entry in entries:
            redis.lpush(ANSWER_QUEUE, entry)
            redis.rpush(ANSWER_QUEUE, entry)
