"""One task in the pool, from Celery's hand to its end, and the reports about it that cross threads."""

import math
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from workers.pool.bridge import Interrupts


def _ignore(*_: Any) -> None:
    """Stands for a callback that Celery did not give."""


class Happened(Enum):
    """What is reported of a job. After one of the last three it is over."""

    SOFT_LIMIT = "soft limit passed"
    HARD_LIMIT = "hard limit passed"
    RETURNED = "the tracer returned"
    RAISED = "the tracer raised"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Report:
    """Something happened to a job; `value` is what it returned, or billiard's ExceptionInfo."""

    job: "Job"
    happened: Happened
    value: Any = None


class Handle(Protocol):
    """What a running job can be stopped by: an asyncio task, or the future of a thread."""

    def cancel(self) -> bool:
        """Ask it to stop."""
        ...


@dataclass(slots=True, weakref_slot=True, eq=False)
class Job:
    """A task that was handed to the pool.

    Celery keeps it by weak reference and calls `terminate` to revoke it.

    Attributes:
        number: stands for the process id in Celery's books.
        task_id: Celery's name for it, and the id of our job.
        call: Celery's tracer with its arguments.
        body: begins the body that may run ahead of the tracer; None where there is none.
        is_async: its body is `async def`: it runs on the loop, else on a thread.
        timer: rings at the limit that comes next.
        soft_limit: seconds, raised at the body's await as SoftTimeLimitExceeded.
        hard_limit: seconds, after which it is cancelled and reported as failed.
    """

    number: int
    task_id: str
    call: Callable[[], Any]
    is_async: bool
    stop: Callable[["Job"], None]
    body: Callable[[], Coroutine[Any, Any, Any]] | None = None
    soft_limit: float | None = None
    hard_limit: float | None = None
    on_accepted: Callable[[int, float], None] = _ignore
    on_timeout: Callable[[bool, float | None], None] = _ignore
    on_returned: Callable[[Any], None] = _ignore
    on_raised: Callable[[Any], None] = _ignore
    interrupts: Interrupts = field(default_factory=Interrupts)
    handle: Handle | None = None
    timer: Handle | None = None

    @property
    def has_soft_limit(self) -> bool:
        """Whether there is one that passes before the hard limit."""
        return bool(self.soft_limit and self.soft_limit < (self.hard_limit or math.inf))

    @property
    def is_terminated(self) -> bool:
        """Its end has been announced, so what it still reports is not."""
        return self.interrupts.terminated

    def terminate(self, _signal: int | None = None) -> None:
        """Cancel it; called by Celery. A job that waits is left to wait: Celery ends it when it is accepted."""
        self.stop(self)
