"""The dispatcher keeps the window full: `pending` becomes `queued`, commit, then publish.

It decides by `window` (how many) and `fairness` (whose), and changes rows only by guarded statements, so a
second dispatcher, or one that dies between commit and publish, costs time and nothing else.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from redis import Redis
from redis.exceptions import RedisError

from promptmill.broker import Ticket
from promptmill.clock import Clock
from promptmill.dimensions import DIMENSIONS
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


@dataclass(frozen=True, slots=True)
class _Waiting:
    """What is pending of one model group, batch by batch, and what each job will take."""

    group: str
    batches: Mapping[str, Sequence[Candidate]]


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
            most = room_for(_load(count, limits, None))
            can_go = {batch_id: min(most, affordable.get(batch_id, most)) for batch_id in members}
            candidates = {b: self._candidates(connection, served[b], group, can_go[b], now) for b in members}
            waiting = _Waiting(group, candidates)
            room = room_for(_load(count, limits, _pace(waiting, limits)))
            picked = pick(_queues(waiting, served), times, limits.per_minute, room)
            times |= picked.times
            chosen += picked.job_ids
            _spend(affordable, waiting, picked.job_ids)
        self._write_times({key: times[key] for key in times if key in served or not key})
        return chosen

    def _candidates(
        self, connection: Connection, batch: BatchRow, group: str, most: int, now: datetime
    ) -> list[Candidate]:
        known = self.experience_of(batch, group)
        pending = jobs.select_pending(connection, batch.id, group, most, now)
        return [Candidate(job.id, amounts_of(job, known)) for job in pending]

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
    for batch_id in served:
        for group in jobs.model_groups_pending(connection, batch_id, now):
            groups[group].append(batch_id)
    return groups


def _spend(affordable: dict[str, int], waiting: _Waiting, job_ids: Sequence[str]) -> None:
    """What one model group of a batch sends out is not left for another."""
    going = set(job_ids)
    for batch_id in waiting.batches.keys() & affordable.keys():
        affordable[batch_id] -= sum(each.job_id in going for each in waiting.batches[batch_id])


def _load(count: GroupCount, limits: GroupLimits, limit_per_s: float | None) -> GroupLoad:
    return GroupLoad(
        queued=count.queued,
        running=count.running,
        starts_per_s=count.starts / STARTS_SPAN_S,
        limit_per_s=limit_per_s,
        paused_s=limits.paused_s,
    )


def _pace(waiting: _Waiting, limits: GroupLimits) -> float | None:
    """Calls per second that the limits allow for jobs like those that wait; None without a limit."""
    pending = [each.amounts for members in waiting.batches.values() for each in members]
    if not pending:
        return None
    means = {each: sum(amounts[each] for amounts in pending) / len(pending) for each in DIMENSIONS}
    paces = [
        limits.per_minute[dimension] / 60 / mean
        for dimension, mean in means.items()
        if limits.per_minute[dimension] > 0 and mean > 0
    ]
    return min(paces, default=None)


def _queues(waiting: _Waiting, served: Mapping[str, BatchRow]) -> list[Queue]:
    return [
        Queue(batch_id, served[batch_id].priority, candidates)
        for batch_id, candidates in waiting.batches.items()
    ]
