"""The reaper puts back what nobody works on: jobs of dead processes, ids that the broker has lost.

Both are found by facts in the database (a worker's row that is not fresh, a `queued` row whose id is
nowhere), and both are guarded: a worker that was only thought dead loses its lease, not its money.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from promptmill.clock import Clock
from promptmill.errors import Unavailable
from promptmill.logs import get_logger
from promptmill.store import jobs
from promptmill.store import workers as store_workers
from promptmill.store.database import Database, database_now

log = get_logger(__name__)

PUBLISHING_S = 2.0
"""Seconds a dispatcher may take between its commit and its publish."""

GOES = 20
"""Transactions in one sweep that end waiting jobs, of 20,000 jobs each."""


@dataclass(slots=True)
class Reaper:
    """Looks for lost work.

    Args:
        present: the ids at the broker; raises Unavailable when it cannot say.
        taken_for: seconds a worker may hold an id before it begins the job (its patience and some).
        dead_after: seconds without a heartbeat after which a process counts as dead.
    """

    database: Database
    present: Callable[[], set[str]]
    clock: Clock
    taken_for: float = 25.0
    dead_after: float = 10.0
    _live: set[str] = field(default_factory=set)

    def sweep(self) -> int:
        """Put back what is lost; how many jobs.

        Raises:
            Unavailable: the database is away.
        """
        with self.database.begin() as connection:
            now = database_now(connection)
            fresh = timedelta(seconds=self.dead_after)
            reaped = store_workers.reap(connection, now, fresh)
            live = {worker.id for worker in store_workers.live(connection, now, fresh)}
        self._end_overdue(now)
        died, self._live = self._live - live, live
        if reaped:
            log.warning("jobs_taken_back", jobs=len(reaped), workers=sorted(died))
        # What a dead process had taken and not begun is nowhere now, so there is no reason to wait for it.
        wait = PUBLISHING_S if died else self.taken_for
        return len(reaped) + self._put_back_lost(now, timedelta(seconds=wait))

    def _end_overdue(self, now: datetime) -> None:
        """End what waits in overdue and canceled batches, in short transactions; the rest at the next sweep."""
        for _ in range(GOES):
            with self.database.begin() as connection:
                if not jobs.expire_overdue(connection, now):
                    return

    def _put_back_lost(self, now: datetime, age: timedelta) -> int:
        try:
            present = self.present()
        except Unavailable:
            return 0
        with self.database.read() as connection:
            lost = jobs.lost_queued(connection, present, now - age)
        if not lost:
            return 0
        with self.database.begin() as connection:
            back = jobs.unqueue(connection, lost, self.clock.now())
        log.warning("lost_ids_put_back", jobs=len(back))
        return len(back)
