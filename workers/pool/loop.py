"""The one event loop of a worker process, on a thread of its own.

Clients belong to the loop they were made on, so they are made in a start hook and closed in a stop hook,
both of which run on it. There is one loop per process, whichever pool Celery runs: the asyncio pool
starts it with the worker, under any other pool the first asynchronous task does.
"""

import asyncio
import atexit
import os
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Final

from promptmill.logs import get_logger
from workers.pool.lag import LagMeter

if sys.platform == "win32":
    new_event_loop = asyncio.new_event_loop
else:
    from uvloop import (
        new_event_loop,
    )  # TLS connections cost a fifth of the memory they cost under asyncio's own

log = get_logger(__name__)

Hook = Callable[[], Awaitable[None]]

STOP_PATIENCE_S: Final = 30.0
"""Seconds a stop hook may take before the next one runs."""

_starting: list[Hook] = []
_stopping: list[Hook] = []


def on_loop_start(hook: Hook) -> Hook:
    """Have `hook` awaited on the loop before the first job; an exception of it ends the worker's start."""
    _starting.append(hook)
    return hook


def on_loop_stop(hook: Hook) -> Hook:
    """Have `hook` awaited on the loop after the last job, the one registered last first."""
    _stopping.append(hook)
    return hook


class LoopThread:
    """An event loop that runs until it is stopped.

    Attributes:
        on_death: called, on the dying thread, when the loop ends though nobody has stopped it.
    """

    def __init__(self) -> None:
        self.on_death: Callable[[], None] = lambda: None
        self._meter = LagMeter()
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="promptmill-loop", daemon=True)

    def start(self) -> None:
        """Run the loop; returns once the start hooks have.

        Raises:
            BaseException: whatever a start hook raised; the loop has ended.
        """
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Run the stop hooks, cancel what is left, end the thread. Harmless when it has ended."""
        if self._loop is None or self._end is None or not self.is_alive:
            return
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(STOP_PATIENCE_S * (len(_stopping) + 1))
        if self.is_alive:
            log.error("loop_did_not_stop")

    @property
    def is_alive(self) -> bool:
        """False before the start, after the stop, and when something has ended the thread."""
        return self._thread.is_alive()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop; only after `start`."""
        if self._loop is None:
            raise RuntimeError("this event loop has not been started")
        return self._loop

    def worst_lag(self) -> float:
        """Seconds: how late the loop was at its worst in the last ten seconds."""
        return self._meter.worst(now=self.loop.time())

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=new_event_loop) as runner:
                runner.run(self._live())
        except BaseException as error:  # noqa: BLE001  # a thread has nobody above it to tell
            if self._ready.is_set():
                log.critical("loop_died", error=type(error).__name__)
                self.on_death()
            else:
                self._failure = error
        finally:
            self._ready.set()

    async def _live(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        watch = asyncio.create_task(self._meter.watch())
        try:
            for hook in _starting:
                await hook()
            self._ready.set()
            await self._end.wait()
        finally:
            watch.cancel()
            for hook in reversed(_stopping):
                await _run_stop_hook(hook)


async def _run_stop_hook(hook: Hook) -> None:
    try:
        async with asyncio.timeout(STOP_PATIENCE_S):
            await hook()
    except Exception:
        log.exception("stop_hook_failed", hook=getattr(hook, "__qualname__", repr(hook)))


_lock = threading.Lock()
_thread: LoopThread | None = None


def start_loop() -> LoopThread:
    """The process's loop thread, started when it does not run yet."""
    global _thread  # noqa: PLW0603  # one loop per process is the point
    with _lock:
        if _thread is None or not _thread.is_alive:
            thread = LoopThread()
            thread.start()
            _thread = thread
        return _thread


def stop_loop() -> None:
    """Stop the process's loop, if it runs."""
    if _thread is not None:
        _thread.stop()


def current_loop() -> asyncio.AbstractEventLoop:
    """The loop that runs this process's jobs.

    Raises:
        RuntimeError: none has been started.
    """
    if _thread is None:
        raise RuntimeError("no event loop runs in this process")
    return _thread.loop


def worst_lag() -> float:
    """Seconds the loop was late at its worst in the last ten; 0 when none runs."""
    return _thread.worst_lag() if _thread is not None and _thread.is_alive else 0.0


def _forget() -> None:
    """A forked child has the parent's variables but none of its threads."""
    global _thread, _lock  # one loop per process is the point
    _thread, _lock = None, threading.Lock()


atexit.register(stop_loop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
