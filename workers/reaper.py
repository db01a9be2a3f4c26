"""The reaper puts back what nobody works on: jobs of dead processes, ids that the broker has lost.

Both are found by facts in the database (a worker's row that is not fresh, a `queued` row whose id is
nowhere), and both are guarded: a worker that was only thought dead loses its lease, not its money.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from promptmill.clock import Clock
from promptmill.errors import Unavailable
from promptmill.logs import get_logger
from promptmill.states import JobState
from promptmill.store import control, jobs
from promptmill.store import workers as store_workers
from promptmill.store.database import Database, database_now
from promptmill.store.workers import AfterLoss
from workers.hands import InHand, in_no_hand
from workers.put_right import Fault
from workers.timekeeping import jumped

log = get_logger(__name__)

PUBLISHING_S = 2.0
"""Seconds a dispatcher may take between its commit and its publish."""

FUTURE = timedelta(minutes=1)
"""So far ahead no clock of ours is: a time beyond is from before the clock was set back."""

UNTOLD = timedelta(seconds=5)
"""Before its last heartbeat: what a process then wrote it may not have told Flower, for events leave a moment later."""
UNTOLD_AFTER = timedelta(minutes=1)
"""After it counts as dead: in that time its jobs are taken back, perhaps by a leader that dies before it tells of them."""
UNTOLD_JOBS = 10_000
"""Of one process, at most: more Flower does not remember."""
DEAD_LATELY = timedelta(hours=1)
"""A process that died before that is of no interest to Flower any more."""

GOES = 20
"""Transactions in one sweep that end waiting jobs, of 20,000 jobs each."""
GOING_S = 2.0
"""Seconds after which a sweep begins no further one: whoever leads does other things too."""


def _tell_nobody(_fault: Fault, _count: int) -> None:
    """For those who count nothing."""


def _tell_no_monitor(_states: Mapping[str, JobState]) -> None:
    """For those who are watched by nobody."""


@dataclass(slots=True)
class Reaper:
    """Looks for lost work.

    Args:
        present: the ids at the broker; raises Unavailable when it cannot say.
        broker_now: the time by which `hands` are told; likewise.
        hands: what these workers told last of what they have in hand; likewise.
        steady_for: seconds since which heartbeats have gone through; see `Heartbeat.steady_for`.
        taken_for: seconds a worker that tells nothing may have had an id since it went out (its patience and some).
            One that tells may have it as long as it says so.
        dead_after: seconds without a heartbeat after which a process counts as dead.
        after_loss: what follows when a job's process is lost for the nth time.
        found: told what was put right, and how much of it.
        lost: told how the jobs of dead processes stand now, and those that they ended last: nobody else says it.
        settle_s: seconds of steady heartbeats before an old one means anything.
    """

    database: Database
    present: Callable[[], set[str]]
    broker_now: Callable[[], float]
    hands: Callable[[Collection[str]], Mapping[str, InHand | None]]
    clock: Clock
    steady_for: Callable[[], float]
    after_loss: AfterLoss = store_workers.again_at_once
    found: Callable[[Fault, int], None] = _tell_nobody
    lost: Callable[[Mapping[str, JobState]], None] = _tell_no_monitor
    taken_for: float = 25.0
    dead_after: float = 10.0
    settle_s: float = 6.0
    _gone_at: dict[tuple[str, int], float] = field(default_factory=dict)
    _told_of: frozenset[str] = frozenset()

    def sweep(self) -> int:
        """Put back what is lost; how many jobs.

        Raises:
            Unavailable: the database is away.
        """
        reaped = self._take_back() if self.steady_for() >= self.settle_s else 0
        self._expire()
        with self.database.begin() as connection:
            resumed = control.resume_due(connection, self.clock.now())
        if resumed:
            log.info("batches_resumed", batches=resumed)
        try:
            return reaped + self._put_back(self._lost())
        except Unavailable as error:
            log.info("lost_ids_not_known", error=str(error))
            return reaped

    def _expire(self) -> None:
        """A batch of a million jobs ends in one sweep, as long as that holds up nothing else."""
        begun = self.clock.monotonic()
        for _ in range(GOES):
            with self.database.begin() as connection:
                ended = jobs.expire_overdue(connection, self.clock.now())
            if not ended or self.clock.monotonic() - begun > GOING_S:
                return

    def _take_back(self) -> int:
        with self.database.begin() as connection:
            now = database_now(connection)
            if jumped(self.clock, now):
                return 0  # every heartbeat is of another time
            silence = timedelta(seconds=self.dead_after)
            reaped = store_workers.reap(connection, now, silence, self.after_loss)
            dead = store_workers.died(connection, now, silence, since=now - DEAD_LATELY)
            last = {
                each: (seen_at - UNTOLD, seen_at + silence + UNTOLD_AFTER)
                for each, seen_at in dead.items()
                if each not in self._told_of
            }
            theirs = {*reaped, *store_workers.closed_by(connection, last, UNTOLD_JOBS)}
            states = jobs.states_of(connection, theirs) if theirs else {}
        if reaped:
            log.warning("jobs_taken_back", jobs=len(reaped))
            self.found(Fault.DEAD_WORKER, len(reaped))
        self._told_of = frozenset(dead)
        if states:
            self.lost(states)
        return len(reaped)

    def _lost(self) -> list[tuple[str, int]]:
        """(id, dispatch) of what is in no queue and in no hand.

        Raises:
            Unavailable: the broker, or the database, is away.
        """
        present = self.present()
        gone_now = self.broker_now()
        with self.database.read() as connection:
            now = self.clock.now()
            gone = jobs.lost_queued(
                connection, present, now - timedelta(seconds=PUBLISHING_S), after=now + FUTURE
            )
            forgotten = now - timedelta(seconds=self.taken_for)
            long_gone = frozenset(jobs.lost_queued(connection, present, forgotten, after=now + FUTURE))
            live = store_workers.live(
                connection, database_now(connection), timedelta(seconds=self.dead_after)
            )
        self._gone_at = {each: self._gone_at.get(each, gone_now) for each in gone}
        if not gone:
            return []
        hands = self.hands([worker.id for worker in live]).values()
        return [
            each
            for each, gone_at in self._gone_at.items()
            if in_no_hand(each[0], gone_at, hands, long_gone=each in long_gone)
        ]

    def _put_back(self, lost: list[tuple[str, int]]) -> int:
        if not lost:
            return 0
        with self.database.begin() as connection:
            back = jobs.unqueue(connection, lost, self.clock.now())
        log.warning("lost_ids_put_back", jobs=len(back))
        self.found(Fault.LOST_ID, len(back))
        return len(back)
