"""The reaper puts back what nobody works on: jobs of dead processes, ids that the broker has lost.

Both are found by facts in the database (a worker's row that is not fresh, a `queued` row whose id is
nowhere), and both are guarded: a worker that was only thought dead loses its lease, not its money.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from promptmill.clock import Clock
from promptmill.errors import Unavailable
from promptmill.logs import get_logger
from promptmill.store import batches, jobs
from promptmill.store import workers as store_workers
from promptmill.store.database import Database, database_now
from promptmill.store.workers import AfterLoss
from workers.put_right import Fault
from workers.timekeeping import jumped

log = get_logger(__name__)

PUBLISHING_S = 2.0
"""Seconds a dispatcher may take between its commit and its publish."""

FUTURE = timedelta(minutes=1)
"""So far ahead no clock of ours is: a time beyond is from before the clock was set back."""

GOES = 20
"""Transactions in one sweep that end waiting jobs, of 20,000 jobs each."""


def _tell_nobody(_fault: Fault, _count: int) -> None:
    """For those who count nothing."""


@dataclass(slots=True)
class Reaper:
    """Looks for lost work.

    Args:
        present: the ids at the broker; raises Unavailable when it cannot say.
        steady_for: seconds since which heartbeats have gone through; see `Heartbeat.steady_for`.
        taken_for: seconds a worker may hold an id before it begins the job (its patience and some).
        dead_after: seconds without a heartbeat after which a process counts as dead.
        after_loss: what follows when a job's process is lost for the nth time.
        found: told what was put right, and how much of it.
        settle_s: seconds of steady heartbeats before an old one means anything.
    """

    database: Database
    present: Callable[[], set[str]]
    clock: Clock
    steady_for: Callable[[], float]
    after_loss: AfterLoss = store_workers.again_at_once
    found: Callable[[Fault, int], None] = _tell_nobody
    taken_for: float = 25.0
    dead_after: float = 10.0
    settle_s: float = 6.0
    _live: set[str] | None = None

    def sweep(self) -> int:
        """Put back what is lost; how many jobs.

        Raises:
            Unavailable: the database is away.
        """
        reaped = self._take_back() if self.steady_for() >= self.settle_s else 0
        with self.database.begin() as connection:
            jobs.expire_overdue(connection, self.clock.now())
            resumed = batches.resume_due(connection, self.clock.now())
        if resumed:
            log.info("batches_resumed", batches=resumed)
        # What a dead process had taken and not begun is nowhere now, so there is no reason to wait for it.
        # A new leader has not seen who died before it: most likely its predecessor.
        wait = PUBLISHING_S if self._somebody_died() else self.taken_for
        return reaped + self._put_back_lost(timedelta(seconds=wait))

    def _take_back(self) -> int:
        with self.database.begin() as connection:
            now = database_now(connection)
            if jumped(self.clock, now):
                return 0  # every heartbeat is of another time
            reaped = store_workers.reap(connection, now, timedelta(seconds=self.dead_after), self.after_loss)
        if reaped:
            log.warning("jobs_taken_back", jobs=len(reaped))
            self.found(Fault.DEAD_WORKER, len(reaped))
        return len(reaped)

    def _somebody_died(self) -> bool:
        with self.database.read() as connection:
            now = database_now(connection)
            fresh = store_workers.live(connection, now, timedelta(seconds=self.dead_after))
        before, self._live = self._live, {worker.id for worker in fresh}
        return before is None or bool(before - self._live)

    def _put_back_lost(self, age: timedelta) -> int:
        try:
            present = self.present()
        except Unavailable:
            return 0
        with self.database.read() as connection:
            now = self.clock.now()
            lost = jobs.lost_queued(connection, present, now - age, after=now + FUTURE)
        if not lost:
            return 0
        with self.database.begin() as connection:
            back = jobs.unqueue(connection, lost, self.clock.now())
        log.warning("lost_ids_put_back", jobs=len(back))
        self.found(Fault.LOST_ID, len(back))
        return len(back)
