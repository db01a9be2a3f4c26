"""A Celery app whose tasks tell Redis what they see. Pointed at by `celery -A pool_tasks worker`."""

import asyncio
import os
import time
from typing import Any

from celery import Task, current_task
from celery.exceptions import SoftTimeLimitExceeded
from celery.signals import worker_ready, worker_shutting_down
from redis import Redis

from promptmill.broker import celery_app
from workers.pool import AsyncTask, current_loop, on_loop_start, on_loop_stop, worst_lag

NOTES = "notes"  # a list per subject: `notes:<subject>`

redis = Redis.from_url(os.environ["PROMPTMILL_REDIS_URL"], client_name="pool-tasks")
app = celery_app(os.environ["PROMPTMILL_REDIS_URL"])
app.conf.update(imports=(), task_default_queue=os.environ["POOL_TEST_QUEUE"])
_gates: dict[str, asyncio.Event] = {}


def note(subject: str, value: Any) -> None:
    redis.rpush(f"{NOTES}:{subject}", str(value))


async def gate(name: str) -> None:
    """Wait until the key `gate:<name>` exists; one look at Redis serves all who wait."""
    if name not in _gates:
        _gates[name] = asyncio.Event()
        while not redis.exists(f"gate:{name}"):  # noqa: ASYNC110  # a key, not an event of this process
            await asyncio.sleep(0.01)
        _gates.pop(name).set()
        return
    await _gates[name].wait()


@worker_ready.connect
def _ready(**_: Any) -> None:
    note("ready", os.getpid())


@worker_shutting_down.connect
def _shutting_down(how: str, **_: Any) -> None:
    note(f"{os.getpid()}:shutting_down", how)


@on_loop_start
async def _loop_starts() -> None:
    if "POOL_TEST_BREAK_START" in os.environ:
        raise ConnectionError("no database")
    note(f"{os.getpid()}:life", "loop starts")


@on_loop_stop
async def _loop_stops() -> None:
    await asyncio.sleep(0)
    note(f"{os.getpid()}:life", "loop stops")


@app.task(base=AsyncTask, bind=True)
async def tell_request(self: Task, subject: str) -> str:
    before = self.request.id
    await asyncio.sleep(0.02)
    note(subject, f"{before} {self.request.id} {current_task.request.id} {id(current_loop())}")
    return "told"


@app.task(base=AsyncTask)
async def tell_process(subject: str) -> None:
    note(subject, os.getpid())


@app.task(base=AsyncTask, bind=True)
async def pass_gate(self: Task, subject: str) -> None:
    note(f"{subject}:begun", self.request.id)
    try:
        await gate(subject)
    except asyncio.CancelledError:
        await asyncio.sleep(0.02)  # a cancelled job may still put its things in order
        note(f"{subject}:cancelled", self.request.id)
        raise
    note(f"{subject}:done", self.request.id)


@app.task(base=AsyncTask, bind=True, max_retries=5)
async def retry_until_third(self: Task, subject: str) -> None:
    await asyncio.sleep(0)
    note(subject, self.request.retries)
    if self.request.retries < 2:
        raise self.retry(countdown=0)


@app.task(base=AsyncTask, bind=True, autoretry_for=(KeyError,), default_retry_delay=0, max_retries=5)
async def retry_by_itself(self: Task, subject: str) -> None:
    await asyncio.sleep(0)
    note(subject, self.request.retries)
    if self.request.retries < 2:
        raise KeyError(subject)


@app.task(base=AsyncTask)
async def fail() -> None:
    await asyncio.sleep(0)
    raise ValueError("on purpose")


@app.task(base=AsyncTask, knows_request=False)
async def fail_ahead() -> None:
    await asyncio.sleep(0)
    raise ValueError("on purpose")


@app.task(base=AsyncTask, knows_request=False)
async def leave_the_interpreter_ahead() -> None:
    raise SystemExit(3)


@app.task(base=AsyncTask, knows_request=False, soft_time_limit=0.2)
async def outlast_soft_limit_ahead(subject: str) -> None:
    try:
        await asyncio.sleep(30)
    except SoftTimeLimitExceeded:
        note(subject, "soft limit at the await")


@app.task(base=AsyncTask)
async def cancel_itself() -> None:
    raise asyncio.CancelledError


@app.task(base=AsyncTask)
async def leave_the_interpreter() -> None:
    raise SystemExit(3)


@app.task(base=AsyncTask)
async def end_the_loop() -> None:
    async def leave() -> None:
        raise SystemExit(3)

    await asyncio.gather(asyncio.create_task(leave()))


@app.task(base=AsyncTask, soft_time_limit=0.2)
async def outlast_soft_limit(subject: str) -> None:
    try:
        await asyncio.sleep(30)
    except SoftTimeLimitExceeded:
        await asyncio.sleep(0.01)  # the job goes on after it
        note(subject, "soft limit at the await")


@app.task(base=AsyncTask, time_limit=0.2)
async def outlast_hard_limit(subject: str) -> None:
    try:
        await asyncio.sleep(30)
    finally:
        note(subject, "ended")


@app.task(base=AsyncTask)
async def use_timeouts_and_children(subject: str) -> None:
    async with asyncio.TaskGroup() as group:
        answer = group.create_task(asyncio.sleep(0.01, "child"))
    try:
        async with asyncio.timeout(0.02):
            await asyncio.sleep(30)
    except TimeoutError:
        note(subject, f"{answer.result()} timeout")


@app.task
def block_a_thread(subject: str) -> None:
    while not redis.exists(f"gate:{subject}"):
        time.sleep(0.01)
    note(subject, current_task.request.id)


@app.task
def fail_plainly() -> None:
    raise ValueError("on purpose")


@app.task(base=AsyncTask)
async def tell_lag(subject: str) -> None:
    note(subject, worst_lag())
