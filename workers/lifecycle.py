"""When a worker process begins and ends: Celery's signals, and how a task finds the process it runs in."""

import asyncio
import contextlib
import gc
import logging
import resource
from collections.abc import Awaitable
from typing import Any

from celery.signals import setup_logging, worker_init, worker_ready, worker_shutdown, worker_shutting_down

from promptmill import logs, settings, unhandled
from promptmill.errors import PromptmillError
from promptmill.logs import get_logger
from promptmill.runtime import Runtime
from workers import pool
from workers.consumer import Consumer
from workers.process import WorkerProcess

log = get_logger(__name__)

SPARE_FILES = 256
"""Files and sockets beside those of the calls: database, Redis, logs."""

YOUNG_OBJECTS = 50_000
"""Objects made and not freed between two small rounds of garbage collection. At Python's own 700 thousands of calls that
begin at once, each some hundred objects that stay, were looked through again and again: a third of the CPU of their
start, in pauses of up to 0.4 s in which nothing else runs (measured at 3,000). So nothing large may wait for a round:
jobs, prompts and answers are let go by their last reference (tests/integration/test_nothing_kept.py)."""

_process: WorkerProcess | None = None
_resources = contextlib.ExitStack()


def answer(job_id: str, dispatch: int) -> Awaitable[None]:
    """Answer one job in this process; see `Pipeline.answer`."""
    return current().answer(job_id, dispatch)


def wake_recurring() -> None:
    """Have this process look at what schedules owe."""
    current().recurring.wake()


def current() -> WorkerProcess:
    """The worker process this code runs in.

    Raises:
        RuntimeError: no worker has been started here.
    """
    if _process is None:
        raise RuntimeError("no worker has been started in this process")
    return _process


@setup_logging.connect
def _set_up_logging(loglevel: int, **_: Any) -> None:
    """In Celery's stead, which would do it after `_open` and to a level of its own; for beat as well.

    Only a `--loglevel` that asks for more than Celery's own WARNING can be told from none.
    """
    config = settings.load()
    logs.configure(level=config.log_level, style=config.log_format)
    unhandled.catch_unhandled()
    if loglevel < logging.WARNING:
        logging.getLogger().setLevel(loglevel)


@worker_init.connect
def _open(**_: Any) -> None:
    global _process  # noqa: PLW0603  # one worker per process; tasks find it here
    try:
        config = settings.load()
        logs.configure(level=config.log_level, style=config.log_format)
        unhandled.catch_unhandled()
        runtime = _resources.enter_context(Runtime.open(config))
        _raise_file_limit(config.worker.concurrency)
        _process = WorkerProcess(runtime)
        _process.start()
    except PromptmillError as error:
        # Celery logs and forgets an exception of a signal, and would run a worker that can do nothing.
        raise SystemExit(f"promptmill worker: {logs.scrub(str(error))}") from error


def _raise_file_limit(calls: int) -> None:
    """Every call in flight is a socket; the usual soft limit of 1,024 files would end a worker of that size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = calls + SPARE_FILES
    if hard != resource.RLIM_INFINITY and hard < wanted:
        log.warning("file_limit_too_low", limit=hard, wanted=wanted)
        wanted = hard
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@pool.on_loop_start
async def _open_on_loop() -> None:
    unhandled.catch_on_loop(asyncio.get_running_loop())
    await current().open_on_loop()


def _leave_the_old_alone() -> None:
    """What the start has made stays to the end: no round of garbage collection need look through it again."""
    gc.collect()
    gc.freeze()
    _, middle, old = gc.get_threshold()
    gc.set_threshold(YOUNG_OBJECTS, middle, old)


@worker_ready.connect
def _lead(sender: Any, **_: Any) -> None:
    _leave_the_old_alone()
    current().leader.start()
    if isinstance(sender, Consumer):
        current().watch(sender)


@worker_shutting_down.connect
def _drain(**_: Any) -> None:
    current().drain()


@pool.on_loop_stop
async def _close_on_loop() -> None:
    await current().close_on_loop()


@worker_shutdown.connect
def _close(**_: Any) -> None:
    # After a cold shutdown Celery does not send this; the loop's stop hook has done the work by then.
    current().stop()
    _resources.close()
