"""The dispatcher keeps the window full: `pending` becomes `queued`, commit, then publish.

It decides by `window` (how many) and `fairness` (whose), and changes rows only by guarded statements, so a
second dispatcher, or one that dies between commit and publish, costs time and nothing else.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from math import ceil

from redis import Redis
from redis.exceptions import RedisError

from promptmill.broker import Ticket
from promptmill.clock import Clock
from promptmill.dimensions import DIMENSIONS, Amounts, Dimension
from promptmill.errors import Unavailable
from promptmill.experience import Experience
from promptmill.logs import get_logger
from promptmill.routes import DISPATCHER_VIRTUAL_TIMES
from promptmill.store import Connection, batches, jobs, stats
from promptmill.store import workers as store_workers
from promptmill.store.batches import BatchRow
from promptmill.store.database import Database, database_now
from promptmill.store.jobs import QueuedJob
from promptmill.store.stats import GroupCount
from workers.accounts import GroupLimits
from workers.affordable import affordable_calls
from workers.experience import amounts_of
from workers.fairness import Candidate, Queue, pick
from workers.window import GroupLoad, room_in_window

log = get_logger(__name__)

STARTS_SPAN_S = 10.0
TIMES_KEPT_S = 86_400


HEADS = 16
"""Jobs that are looked at of each of a few batches, before anything of a model group has gone out."""
REMEMBERED = 200
"""Jobs over which the mean of what a job takes is kept."""


@dataclass(slots=True)
class _Usual:
    """What the last jobs of a model group were expected to take, on average; older ones fade."""

    count: float = 0.0
    sums: dict[Dimension, float] = field(default_factory=lambda: dict.fromkeys(DIMENSIONS, 0.0))

    def note(self, amounts: Amounts) -> None:
        fading = min(1.0, REMEMBERED / (self.count + 1))
        self.count = (self.count + 1) * fading
        for each in DIMENSIONS:
            self.sums[each] = (self.sums[each] + amounts[each]) * fading

    def pace(self, limits: GroupLimits) -> float | None:
        """Calls per second that the limits allow for such jobs; None without a limit."""
        paces = [
            limits.per_minute[each] / 60 * self.count / self.sums[each]
            for each in DIMENSIONS
            if limits.per_minute[each] > 0 and self.sums[each] > 0
        ]
        return min(paces, default=None)


@dataclass(frozen=True, slots=True)
class _Lines:
    """The batches that have pending jobs of one model group, and where to read those."""

    connection: Connection
    group: str
    batches: Sequence[BatchRow]
    affordable: Mapping[str, int]
    now: datetime

    def most(self, batch: BatchRow, room: int) -> int:
        """How many ids of a batch may go out: its budget may pay for fewer than there is room for."""
        return min(room, self.affordable.get(batch.id, room))


@dataclass(slots=True)
class Dispatcher:
    """Fills the window from the database.

    Args:
        publish: hands tickets to the broker; raises Unavailable when it cannot.
        limits_of: what the limiter knows of a model group.
        experience_of: what is known of the answers to a batch's prompts of one group; None for nothing.
        endpoint: batches for another endpoint are left alone.
    """

    database: Database
    redis: "Redis"
    publish: Callable[[Sequence[Ticket]], None]
    limits_of: Callable[[str], GroupLimits]
    experience_of: Callable[[BatchRow, str], Experience | None]
    endpoint: str
    clock: Clock
    _times: dict[str, float] = field(default_factory=dict)
    _usual: defaultdict[str, _Usual] = field(default_factory=lambda: defaultdict(_Usual))

    def fill_window(self) -> int:
        """Queue and publish what there is room for; how many ids went out.

        Raises:
            Unavailable: the database is away, or the broker is: then the ids are `pending` again.
        """
        now = self.clock.now()
        with self.database.read() as connection:
            served = {b.id: b for b in batches.active(connection) if b.endpoint == self.endpoint}
            affordable = affordable_calls(connection, served.values())
            served = {batch_id: row for batch_id, row in served.items() if affordable.get(batch_id, 1)}
            if not served:
                return 0
            chosen = self._choose(connection, served, affordable, now)
        if not chosen:
            return 0
        with self.database.begin() as connection:
            queued = jobs.queue(connection, chosen, now)
        self._publish(queued, now)
        return len(queued)

    def _choose(
        self,
        connection: Connection,
        served: Mapping[str, BatchRow],
        affordable: dict[str, int],
        now: datetime,
    ) -> list[str]:
        groups = _groups(connection, served, now)
        if not groups:
            return []
        counts, times = stats.window_counts(connection, now), self._read_times()
        room_for = partial(room_in_window, slots=self._slots(connection), contended=len(groups) > 1)
        chosen: list[str] = []
        for group, members in groups.items():
            limits, count = self.limits_of(group), counts.get(group, GroupCount())
            lines = _Lines(connection, group, [served[batch_id] for batch_id in members], affordable, now)
            room = room_for(_load(count, limits, self._pace(lines, limits)))
            picked = pick(self._queues(lines, room), times, limits.per_minute, room)
            times |= picked.times
            chosen += picked.job_ids
            # What one model group of a batch sends out is not left for another.
            for batch_id in affordable.keys() & picked.of_batch.keys():
                affordable[batch_id] -= picked.of_batch[batch_id]
        self._write_times({key: times[key] for key in times if key in served or not key})
        return chosen

    def _pace(self, lines: _Lines, limits: GroupLimits) -> float | None:
        usual = self._usual[lines.group]
        if not usual.count:
            for batch in lines.batches[:HEADS]:
                for _ in self._line(lines, batch, HEADS, HEADS):
                    pass
        return usual.pace(limits)

    def _queues(self, lines: _Lines, room: int) -> list[Queue]:
        """The batches that want to send, each with a line that is read as far as it is taken from."""
        weights = sum(batch.priority for batch in lines.batches)
        return [
            Queue(
                batch.id,
                batch.priority,
                self._line(lines, batch, ceil(room * batch.priority / weights), lines.most(batch, room)),
            )
            for batch in lines.batches
        ]

    def _line(self, lines: _Lines, batch: BatchRow, page: int, most: int) -> Iterator[Candidate]:
        """The next jobs of a batch, read page by page, each as long as all before it."""
        known, usual = self.experience_of(batch, lines.group), self._usual[lines.group]
        seen: set[str] = set()
        while len(seen) < most:
            page = min(max(page, 2 * len(seen)), most)
            found = jobs.select_pending(lines.connection, batch.id, lines.group, page, lines.now)
            for job in found:
                if job.id not in seen:
                    seen.add(job.id)
                    amounts = amounts_of(job, known)
                    usual.note(amounts)
                    yield Candidate(job.id, amounts)
            if len(found) < page:
                return

    def _slots(self, connection: Connection) -> int:
        live = store_workers.live(connection, database_now(connection))
        return sum(worker.slots for worker in live if worker.endpoint == self.endpoint)

    def _publish(self, queued: Sequence[QueuedJob], now: datetime) -> None:
        tickets = [
            Ticket(
                job_id=job.job_id,
                dispatch=job.dispatch,
                batch=job.batch,
                model=job.model,
                attempt=job.attempts + 1,
            )
            for job in queued
        ]
        try:
            self.publish(tickets)
        except Unavailable:
            # Some may have gone out: their number is stale after this, so they will be dropped quietly.
            with self.database.begin() as connection:
                jobs.unqueue(connection, [(job.job_id, job.dispatch) for job in queued], now)
            raise

    @property
    def _times_key(self) -> str:
        return DISPATCHER_VIRTUAL_TIMES + self.endpoint

    def _read_times(self) -> dict[str, float]:
        try:
            stored = self.redis.hgetall(self._times_key)
        except RedisError:
            return dict(self._times)
        return {key.decode(): float(value) for key, value in stored.items()}  # type: ignore[union-attr]  # the sync client

    def _write_times(self, times: Mapping[str, float]) -> None:
        self._times = dict(times)
        try:
            with self.redis.pipeline(transaction=True) as pipe:
                pipe.delete(self._times_key)
                pipe.hset(self._times_key, mapping={key: repr(value) for key, value in times.items()})
                pipe.expire(self._times_key, TIMES_KEPT_S)
                pipe.execute()
        except RedisError as error:
            log.warning("virtual_times_not_kept", error=type(error).__name__)


def _groups(connection: Connection, served: Iterable[str], now: datetime) -> dict[str, list[str]]:
    """The batches with a job to send, by model group."""
    groups: dict[str, list[str]] = defaultdict(list)
    sending = jobs.groups_pending(connection, now)
    for batch_id in served:
        for group in sending.get(batch_id, ()):
            groups[group].append(batch_id)
    return groups


def _load(count: GroupCount, limits: GroupLimits, limit_per_s: float | None) -> GroupLoad:
    return GroupLoad(
        queued=count.queued,
        running=count.running,
        starts_per_s=count.starts / STARTS_SPAN_S,
        limit_per_s=limit_per_s,
        paused_s=limits.paused_s,
    )
