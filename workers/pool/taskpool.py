"""Celery's worker pool on one event loop: thousands of jobs in one process.

Two threads, each with its own things. Celery's consumer keeps the main thread; it counts jobs, accepts
them (which acknowledges the message) and hears how they ended, so Celery's own callbacks never leave it.
The loop thread runs the bodies and reports. Between them go `call_soon_threadsafe` one way, and a deque
with a doorbell the other, rung once for many ends where that leaves no slot empty for long. Bodies that are plain functions run on a few threads, and cannot be interrupted.
"""

import functools
import itertools
import select
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from time import monotonic
from typing import Any, Final

from billiard.einfo import ExceptionInfo
from celery.concurrency.base import BasePool
from celery.exceptions import ImproperlyConfigured, WorkerLostError, WorkerShutdown
from celery.signals import worker_shutting_down
from kombu.asynchronous import get_event_loop

from promptmill.logs import get_logger
from workers.pool.bridge import AsyncTask, run_ahead, run_in_greenlet
from workers.pool.doorbell import Doorbell
from workers.pool.job import Happened, Job, Report
from workers.pool.loop import LoopThread, start_loop, stop_loop

log = get_logger(__name__)

# Celery sends this from the handlers of SIGTERM and the like, under a lock that a second handler, in the middle of
# the first, would wait for without end: two signals close together left a worker that nothing but -9 could stop.
worker_shutting_down.lock = threading.RLock()  # type: ignore[attr-defined]  # missing in the stubs

PLAIN_THREADS: Final = 4
"""Threads for bodies that are plain functions; more wait their turn."""

CANCEL_PATIENCE_S: Final = 10.0
"""Seconds that cancelled jobs may take to put their things in order when the worker stops."""

RING_AT_SHARE: Final = 0.25
"""Of the slots: when so many stand empty unheard, the doorbell rings at once."""


class TaskPool(BasePool):
    """The `worker_pool` of Promptmill: `worker_pool = "workers.pool:TaskPool"`."""

    signal_safe = False
    body_can_be_buffer = True

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._numbers = itertools.count(1)
        self._running: dict[int, Job] = {}
        self._waiting: deque[Job] = deque()
        self._begun: deque[Job] = deque()
        self._is_loop_called = False
        self._reports: deque[Report] = deque()
        self._threads = ThreadPoolExecutor(PLAIN_THREADS, thread_name_prefix="promptmill-plain")
        self._loop: LoopThread | None = None
        self._is_dead = False
        self._is_asked_to_stop = False
        self._is_cut_short = False
        self._is_draining = False
        self._doorbell: Doorbell
        self._hub: Any

    # The pool's life, in the consumer's thread

    def on_start(self) -> None:
        """Start the loop; what a start hook raises ends the worker."""
        self._hub = get_event_loop()
        if self._hub is None:
            raise ImproperlyConfigured(
                "this pool needs a Redis or RabbitMQ broker; for others use -P threads"
            )
        self._doorbell = Doorbell()
        self._loop = start_loop()
        self._loop.on_death = self._die
        worker_shutting_down.connect(self._on_stop_request)

    def register_with_event_loop(self, loop: Any) -> None:
        """Listen for reports; called again after each reconnection, which empties the hub."""
        loop.add_reader(self._doorbell, self._on_doorbell)

    def on_close(self) -> None:
        """Begin nothing more; what was not begun was not acknowledged, and goes back to the broker."""
        self._waiting.clear()

    def on_stop(self) -> None:
        """Let the running jobs finish (those cancelled have ten seconds), then stop the loop.

        Celery also calls it inside the handler of a signal, in the middle of whatever that interrupted. Then the
        jobs are only told to end: the hub must not turn inside its own turn, and Celery stops the pool once more.
        """
        if self._loop is None:
            return
        if self._is_draining or self.active:
            self._cut_short()
            return
        self._is_draining = True
        self._drain()
        self._threads.shutdown(wait=False, cancel_futures=True)
        stop_loop()
        self._loop = None
        self._hub.remove_reader(self._doorbell)
        self._doorbell.close()

    def on_terminate(self) -> None:
        """Cancel every job, then stop."""
        self.cancel_running()
        self.on_stop()

    @property
    def has_free_slot(self) -> bool:
        """Whether one more job could run now; readable from any thread."""
        return bool(len(self._running) < self.limit)

    @property
    def task_ids(self) -> frozenset[str]:
        """The ids of the tasks that Celery has handed over and whose end it has not heard; from any thread."""
        return frozenset(job.task_id for job in (*tuple(self._waiting), *tuple(self._running.values())))

    def cancel_running(self) -> None:
        """Ask every running job to stop; each sees CancelledError at its await."""
        for job in tuple(self._running.values()):
            self._stop(job)

    def _on_stop_request(self, **_: Any) -> None:
        """The first request drains; a second one, whatever the signal, hands back at once. Runs in its handler."""
        if self._is_asked_to_stop:
            self._cut_short()
        self._is_asked_to_stop = True

    def _cut_short(self) -> None:
        self._is_cut_short = True
        self.cancel_running()

    def flush(self) -> None:
        """Forget what has not begun: its connection is lost, and the reaper will send it out again."""
        self._waiting.clear()

    def terminate_job(self, pid: int, signal: int | None = None) -> None:  # noqa: ARG002  # Celery's signature; a signal means nothing to a coroutine
        """Cancel the job that Celery knows as process `pid`."""
        job = self._running.get(pid)
        if job is not None:
            self._stop(job)

    def grow(self, n: int = 1) -> None:
        """Run `n` more jobs at a time."""
        self.limit += n
        self._fill()

    def shrink(self, n: int = 1) -> None:
        """Run `n` fewer jobs at a time, at least one; those running are left alone."""
        self.limit = max(self.limit - n, 1)

    def _get_info(self) -> dict[str, Any]:
        info: dict[str, Any] = super()._get_info()  # type: ignore[misc]  # missing in the stubs
        lag = self._loop.worst_lag() if self._loop is not None else 0.0
        return info | {"running": len(self._running), "waiting": len(self._waiting), "worst-loop-lag": lag}

    # Jobs, in the consumer's thread

    def on_apply(  # type: ignore[override]  # the stubs say None, every pool of Celery's gives its job
        self,
        target: Callable[..., Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Job:
        """Begin a job, or keep it until a slot is free."""
        callbacks = {
            name: options[option] for name, option in _CALLBACKS.items() if options.get(option) is not None
        }
        task = self._async_task(args)
        job = Job(
            number=next(self._numbers),
            call=functools.partial(target, *args, **(kwargs or {})),
            task_id=str(options.get("correlation_id", "")),
            is_async=task is not None,
            body=functools.partial(_begin_body, task, args) if task and not task.knows_request else None,
            stop=self._stop,
            soft_limit=options.get("soft_timeout") or self.options.get("soft_timeout"),
            hard_limit=options.get("timeout") or self.options.get("timeout"),
            **callbacks,
        )
        self._waiting.append(job)
        self._fill()
        return job

    def _async_task(self, args: Sequence[Any]) -> AsyncTask | None:
        """Celery's tracer is given the task's name first."""
        task = self.app.tasks.get(args[0]) if args and isinstance(args[0], str) else None
        return task if getattr(task, "body", None) is not None else None

    @property
    def _may_begin(self) -> bool:
        return bool(self.active) and not self._is_cut_short

    def _fill(self) -> None:
        while self._waiting and self._may_begin and len(self._running) < self.limit:
            self._begin(self._waiting.popleft())

    def _begin(self, job: Job) -> None:
        self._running[job.number] = job
        job.on_accepted(job.number, monotonic())  # acknowledges; a revoke that came before terminates it here
        if job.is_terminated:
            del self._running[job.number]
        elif job.is_async:
            self._hand_to_loop(job)
        else:
            self._run_on_thread(job)

    def _hand_to_loop(self, job: Job) -> None:
        """Those that begin while the loop has not come to it yet go with one call: each call costs as much as a job's end."""
        self._begun.append(job)
        if not self._is_loop_called:
            self._is_loop_called = True
            self._asyncio.call_soon_threadsafe(self._run_begun)

    def _stop(self, job: Job) -> None:
        if job.number not in self._running or job.is_terminated or self._is_dead:
            return
        job.interrupts.terminated = True
        self._asyncio.call_soon_threadsafe(_cancel, job)

    def _on_doorbell(self) -> None:
        self._doorbell.answer()
        if self._is_dead and self.active:
            raise WorkerShutdown(1)  # a worker that takes messages and answers none is worse than no worker
        while self._reports:
            self._hear(self._reports.popleft())
        self._fill()

    def _hear(self, report: Report) -> None:
        job = report.job
        try:
            match report.happened:
                case Happened.SOFT_LIMIT:
                    job.on_timeout(True, job.soft_limit)
                case Happened.HARD_LIMIT:
                    job.on_timeout(False, job.hard_limit)
                case Happened.RETURNED if not job.is_terminated:
                    job.on_returned(report.value)
                case Happened.RAISED if not job.is_terminated:
                    job.on_raised(report.value)
        except Exception:
            log.exception("callback_failed", happened=report.happened.name)
        finally:
            if report.happened not in _LIMITS:
                self._running.pop(job.number, None)

    # The last jobs, in the consumer's thread

    def _drain(self) -> None:
        turns = self._turns()
        deadline: float | None = None
        while self._running:
            if self._loop is None or self._is_dead:
                log.error("loop_gone_while_draining", jobs=len(self._running))
                return
            if all(job.is_terminated for job in self._running.values()):
                deadline = deadline or monotonic() + CANCEL_PATIENCE_S
                if monotonic() > deadline:
                    log.error("cancelled_jobs_did_not_end", jobs=len(self._running))
                    return
            next(turns)
            self._on_doorbell()  # a signal's handler may have come between a ring and its answer

    def _turns(self) -> Generator[None, None, None]:
        """Each turn waits for a report, a second at most.

        Celery's hub turns meanwhile: so acknowledgements and events leave at once, and a message that
        arrived as consuming stopped goes back to the queue. Without the broker, only reports are heard.
        """
        try:
            self._hub.add_reader(self._doorbell, self._on_doorbell)
            while True:
                yield from self._hub.create_loop()
                yield
        except Exception as error:  # noqa: BLE001  # the broker's transport may raise anything as it goes
            log.warning("drain_without_broker", error=type(error).__name__)
        while True:
            select.select([self._doorbell], [], [], 1.0)
            self._on_doorbell()
            yield

    # Bodies, on the loop's thread or on a plain one

    @property
    def _asyncio(self) -> Any:
        if self._loop is None:
            raise RuntimeError("this pool does not run")
        return self._loop.loop

    def _run_begun(self) -> None:
        self._is_loop_called = False  # first: whoever comes after this calls again
        while self._begun:
            self._run_on_loop(self._begun.popleft())

    def _run_on_loop(self, job: Job) -> None:
        if job.is_terminated:
            self._report(Report(job, Happened.CANCELLED))
            return
        task = self._asyncio.create_task(_trace(job))
        job.handle = task
        if job.has_soft_limit:
            job.timer = self._asyncio.call_later(job.soft_limit, self._pass_soft_limit, job)
        elif job.hard_limit:
            job.timer = self._asyncio.call_later(job.hard_limit, self._pass_hard_limit, job)
        task.add_done_callback(functools.partial(self._end, job, self._report_from_loop))

    def _run_on_thread(self, job: Job) -> None:
        future = self._threads.submit(job.call)
        job.handle = future
        future.add_done_callback(functools.partial(self._end, job, self._report))

    def _pass_soft_limit(self, job: Job) -> None:
        if job.handle is not None and not job.is_terminated:
            job.interrupts.soft_limit = job.soft_limit
            job.handle.cancel()
            self._report(Report(job, Happened.SOFT_LIMIT))
            if job.hard_limit:
                left = max(job.hard_limit - (job.soft_limit or 0), 0)
                job.timer = self._asyncio.call_later(left, self._pass_hard_limit, job)

    def _pass_hard_limit(self, job: Job) -> None:
        if job.handle is not None and not job.is_terminated:
            job.interrupts.terminated = True
            job.handle.cancel()
            self._report(Report(job, Happened.HARD_LIMIT))

    def _end(self, job: Job, report: Callable[[Report], None], future: "Future[Any]") -> None:
        """`future` is the asyncio task or the thread's future; both speak the same words."""
        if job.timer is not None:
            job.timer.cancel()
        job.handle = None  # its frames hold the job, and with them the prompt
        if future.cancelled():
            report(Report(job, Happened.CANCELLED))
        elif (error := future.exception()) is not None:
            einfo = ExceptionInfo((type(error), error, error.__traceback__))
            report(Report(job, Happened.RAISED, einfo))
        else:
            report(Report(job, Happened.RETURNED, future.result()))

    def _die(self) -> None:
        self._is_dead = True
        self._doorbell.ring()

    def _report(self, report: Report) -> None:
        """From a plain thread, or about what cannot wait."""
        self._reports.append(report)
        self._doorbell.ring()

    def _report_from_loop(self, report: Report) -> None:
        """At once when many slots are empty; else soon, with all that end until then."""
        self._reports.append(report)
        if self._is_draining or len(self._reports) >= self.limit * RING_AT_SHARE:
            self._doorbell.ring()
        else:
            self._doorbell.ring_soon(self._asyncio)


def _begin_body(task: AsyncTask, args: Sequence[Any]) -> Coroutine[Any, Any, Any]:
    """Celery's tracer is given the request third; what the message asks for has been read into it."""
    request = args[2]
    body: Coroutine[Any, Any, Any] = task.body(*request["args"], **request["kwargs"])
    return body


async def _trace(job: Job) -> Any:
    try:
        if job.body is None:
            return await run_in_greenlet(job.call, job.interrupts)
        began = monotonic()
        failed, value, _ = await run_ahead(job.body, job.call, job.interrupts)
        return failed, value, monotonic() - began  # the tracer was there for the end only
    except (
        SystemExit,
        KeyboardInterrupt,
    ) as error:  # asyncio would end the loop, and with it every other job
        raise WorkerLostError(repr(error)) from error


def _cancel(job: Job) -> None:
    if job.handle is not None:
        job.handle.cancel()


_LIMITS = frozenset({Happened.SOFT_LIMIT, Happened.HARD_LIMIT})
_CALLBACKS = {
    "on_accepted": "accept_callback",
    "on_timeout": "timeout_callback",
    "on_returned": "callback",
    "on_raised": "error_callback",
}
