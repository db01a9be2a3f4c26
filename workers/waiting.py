"""The jobs of this process that wait for a permit, so that they can be called off while they wait.

A job whose batch was paused in the meantime would be granted its turn, find that it must not begin, and leave
those behind it waiting for nothing: after a resume that took seconds.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from promptmill.errors import LimitReached
from promptmill.store.jobs import LoadedJob


@dataclass(slots=True)
class Waiting:
    """Who waits, by the task they wait in. To be used on the event loop alone."""

    _jobs: dict["asyncio.Task[object]", LoadedJob] = field(default_factory=dict)
    _called_off: set["asyncio.Task[object]"] = field(default_factory=set)
    _checked: set[str] = field(default_factory=set)

    @contextmanager
    def waits(self, job: LoadedJob) -> Iterator[None]:
        """The current task waits for a permit for `job`, for the length of the block.

        Raises:
            LimitReached: it was called off.
        """
        task = asyncio.current_task()
        assert task is not None, "a job always runs in a task"  # noqa: S101  # tells mypy what asyncio guarantees
        self._jobs[task] = job
        try:
            yield
        except asyncio.CancelledError:
            if task not in self._called_off:
                raise
            task.uncancel()  # the wait was cancelled, not the job
            raise LimitReached("called off while it waited") from None
        finally:
            del self._jobs[task]
            self._called_off.discard(task)

    def of(self, batch_id: str) -> list[LoadedJob]:
        """The jobs of a batch that wait."""
        return [job for job in self._jobs.values() if job.batch_id == batch_id]

    @contextmanager
    def checked(self, batch_id: str) -> Iterator[list[LoadedJob]]:
        """The jobs of a batch that wait, to be looked at; none while somebody else looks at them already."""
        if batch_id in self._checked:
            yield []
            return
        self._checked.add(batch_id)
        try:
            yield self.of(batch_id)
        finally:
            self._checked.discard(batch_id)

    def call_off(self, which: Callable[[LoadedJob], bool] = lambda _job: True) -> None:
        """End the wait of some jobs, or of all."""
        for task in [task for task, job in self._jobs.items() if which(job)]:
            self._called_off.add(task)
            task.cancel()
