"""From Celery's tracer, which is an ordinary function, to an `async def` task body, and back.

Celery's unmodified tracer runs in a greenlet, one per job, so that states, signals, retries and
`self.request` (which Celery keeps per greenlet) are its own. When the body is reached, it is driven inside
that greenlet: whatever it awaits is handed, by a greenlet switch, to the asyncio task the greenlet belongs
to, and what comes back is handed down again. The event loop sees one ordinary task per job.

A body that needs no `self.request` (`knows_request=False`) runs ahead of the tracer, in the asyncio task alone; when it
has ended, the tracer runs from its beginning to its end and is given the body's outcome. No greenlet, so no switches,
and 11 kB less per job in flight. What Celery does before a body (`task_prerun`, `before_start`) comes after it then.
Code in child tasks of a body (gather, TaskGroup) is outside the greenlet and has no `self.request` either.
"""

import asyncio
import functools
import inspect
import types
from collections.abc import Callable, Coroutine, Generator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import greenlet  # type: ignore[import-untyped]  # it ships no types
from celery import Task, current_task
from celery.app import pop_current_task, push_current_task
from celery.exceptions import SoftTimeLimitExceeded

from workers.pool.loop import start_loop

T = TypeVar("T")

_outcome: ContextVar[Callable[[], Any] | None] = ContextVar("outcome", default=None)
"""What a body that ran ahead returned or raised, until the tracer asks for it."""


class JobCancelled(Exception):
    """A body raised CancelledError though nobody had asked it to stop: an ordinary failure."""


@dataclass(slots=True)
class Interrupts:
    """What a cancellation of the asyncio task means to the body.

    Attributes:
        terminated: the job is to end (revoked, hard limit, shutdown); the body sees CancelledError.
        soft_limit: seconds of a soft limit that has just passed; the body sees SoftTimeLimitExceeded, once.
    """

    terminated: bool = False
    soft_limit: float | None = None

    def translate(self, cancelled: asyncio.CancelledError) -> BaseException:
        """The exception to raise at the body's await for a cancellation of its asyncio task."""
        if self.terminated or self.soft_limit is None:
            return cancelled
        exceeded, self.soft_limit = SoftTimeLimitExceeded(self.soft_limit), None
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()
        return exceeded


@types.coroutine
def _steps(body: Coroutine[Any, Any, T], interrupts: Interrupts) -> Generator[Any, Any, T]:
    """Run `body` to its end, yielding what it awaits; cancellations are translated on their way in and out."""
    answer, error = None, None
    try:
        while True:
            try:
                awaited = body.send(answer) if error is None else body.throw(error)
            except StopIteration as end:
                value: T = end.value
                return value
            except asyncio.CancelledError as cancelled:
                if interrupts.terminated:
                    raise
                raise JobCancelled from cancelled
            answer = error = None
            try:
                answer = yield awaited
            except asyncio.CancelledError as cancelled:
                error = interrupts.translate(cancelled)
            except BaseException as raised:  # noqa: BLE001  # all of it is the body's to handle
                error = raised
    finally:
        error = None  # it refers to this frame by its traceback


class _JobGreenlet(greenlet.greenlet):  # type: ignore[misc]  # greenlet ships no types
    """Where one job's tracer runs."""

    interrupts: Interrupts

    def drive(self, body: Coroutine[Any, Any, T]) -> T:
        """Run `body` to its end; called inside this greenlet."""
        steps = _steps(body, self.interrupts)
        try:
            awaited = next(steps)
            while True:
                try:
                    answer = self.parent.switch(awaited)
                except BaseException as error:  # noqa: BLE001  # handed down to where the body awaits
                    awaited = steps.throw(error)
                else:
                    awaited = steps.send(answer)
        except StopIteration as end:
            value: T = end.value
            return value


@types.coroutine
def run_in_greenlet(call: Callable[[], T], interrupts: Interrupts) -> Generator[Any, Any, T]:
    """Run a plain function, inside of which `async def` bodies may be awaited, in the running asyncio task."""
    here = greenlet.getcurrent()
    job = _JobGreenlet(call, here)
    job.interrupts = interrupts
    job.gr_context = here.gr_context  # context variables bound by the tracer's signals hold in the body too
    outcome = job.switch()
    while not job.dead:
        try:
            answer = yield outcome
        except BaseException as error:  # noqa: BLE001  # handed down to where the body awaits
            outcome = job.throw(error)
        else:
            outcome = job.switch(answer)
    result: T = outcome
    return result


async def run_ahead(
    begin: Callable[[], Coroutine[Any, Any, Any]], call: Callable[[], T], interrupts: Interrupts
) -> T:
    """Run a body to its end, then the plain function that asks for it, and has what the body returned or raised."""
    try:
        value = await _steps(begin(), interrupts)
    except Exception as error:  # noqa: BLE001  # the tracer's to judge
        _outcome.set(functools.partial(_raise, error))
        result = call()
        error.__traceback__ = (
            None  # the tracer's frame holds the error, and by this the error holds that frame
        )
        return result
    _outcome.set(lambda: value)
    return call()


def _raise(error: Exception) -> NoReturn:
    try:
        raise error
    finally:
        del error  # it refers to this frame by its traceback


def await_here(body: Coroutine[Any, Any, T]) -> T:
    """The result of `body`, waited for by a plain function: a pool's job, or any thread that has no loop.

    Raises:
        RuntimeError: called on an event loop, which waiting would block.
    """
    here = greenlet.getcurrent()
    if isinstance(here, _JobGreenlet):
        return here.drive(body)
    return _await_on_shared_loop(body)


def _await_on_shared_loop(body: Coroutine[Any, Any, T]) -> T:
    """Under Celery's other pools the body runs on the process's loop while its thread waits."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        body.close()
        raise RuntimeError("an asynchronous task was called on an event loop: await its body instead")
    task = current_task._get_current_object() if current_task else None  # type: ignore[attr-defined]  # noqa: SLF001  # Celery's proxy, documented as such
    request = task.request_stack.top if task is not None else None

    def with_request() -> T:
        if task is None or request is None:
            return await_here(body)
        push_current_task(task)
        task.request_stack.push(request)
        try:
            return await_here(body)
        finally:
            task.request_stack.pop()
            pop_current_task()

    async def elsewhere() -> T:
        return await run_in_greenlet(with_request, Interrupts())

    return asyncio.run_coroutine_threadsafe(elsewhere(), start_loop().loop).result()


class AsyncTask(Task):  # type: ignore[type-arg]  # Celery's Task cannot be subscripted at run time
    """A Celery task whose body may be `async def`; give it as `base=` or as the app's `task_cls`.

    Attributes:
        knows_request: whether the body may ask for `self.request`; one that does not is cheaper (an option of the task).
        body: the `async def` as it was written; None for a plain function.

    It wraps `run` and not `__call__`, so that Celery's automatic retries wrap it in turn.
    """

    abstract = True
    knows_request = True
    body: Any = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        run = cls.__dict__.get("run")
        body = run.__func__ if isinstance(run, staticmethod) else run
        if not inspect.iscoroutinefunction(body):
            return

        @functools.wraps(body)
        def run_and_wait(*args: Any, **kwargs: Any) -> Any:
            ended = _outcome.get()
            if ended is None:
                return await_here(body(*args, **kwargs))
            _outcome.set(None)  # for this call of the body alone
            try:
                return ended()
            finally:
                del ended  # what it raises refers to this frame by its traceback

        wrapped = staticmethod(run_and_wait) if isinstance(run, staticmethod) else run_and_wait
        cls.run = wrapped  # type: ignore[method-assign]  # how Celery itself sets a body
        cls.body = run
