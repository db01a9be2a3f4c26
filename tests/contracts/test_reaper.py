"""The reaper on both databases: what nobody works on goes back to `pending`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from redis import Redis as RedisClient

from promptmill.clock import ManualClock, SystemClock
from promptmill.errors import Unavailable
from promptmill.retries import GiveUp
from promptmill.states import JobState
from promptmill.store import jobs, leases, ledger, outcomes, stats
from promptmill.store import workers as store_workers
from promptmill.store.database import Database, database_now
from promptmill.store.workers import NewWorker
from promptmill.testing import a_batch
from tests.claims import a_claim
from workers.hands import Hands, InHand
from workers.reaper import PUBLISHING_S, Reaper

LONG_AGO = timedelta(seconds=60)
IN_NO_HAND: dict[str, Any] = {"broker_now": lambda: 0.0, "hands": dict.fromkeys}
"""Workers that cannot tell what they have."""


@pytest.fixture
def reap(database: Database) -> Callable[..., Reaper]:
    def make(present: set[str] | None = None, **settings: Any) -> Reaper:
        facts: dict[str, Any] = {"steady_for": lambda: 3600.0, "clock": SystemClock(), **IN_NO_HAND}
        facts |= settings
        return Reaper(database=database, present=lambda: present or set(), **facts)

    return make


def queue_all(database: Database, batch_id: str, *, ago: timedelta = timedelta()) -> list[jobs.QueuedJob]:
    now = SystemClock().now() - ago
    with database.begin() as connection:
        pending = jobs.select_pending(connection, batch_id, "claude-sonnet-5", 100, SystemClock().now())
        return jobs.queue(connection, [job.id for job in pending], now)


def begin_all(database: Database, queued: list[jobs.QueuedJob], worker_id: str) -> None:
    now = SystemClock().now()
    claims = [a_claim(job, now) for job in queued]
    with database.begin() as connection:
        leases.begin(connection, claims, worker_id, now)


def begin_and_fail(database: Database, worker_id: str, batch_id: str) -> str:
    """The one job of a batch, which this process begins and ends without an answer."""
    (queued,) = queue_all(database, batch_id)
    begin_all(database, [queued], worker_id)
    now = SystemClock().now()
    with database.begin() as connection:
        (tried,) = ledger.attempts_of(connection, batch_id=batch_id)
        closed = ledger.ClosedAttempt(attempt_id=tried.id, outcome="overloaded", closed_at=now)
        failure = outcomes.Failure(
            job_id=queued.job_id, token=tried.token, attempt=closed, error_kind="overloaded"
        )
        outcomes.fail(connection, [failure], now)
    return queued.job_id


def a_worker(database: Database, worker_id: str, *, ago: timedelta = timedelta()) -> None:
    new = NewWorker(id=worker_id, host="h", pid=1, version="0", endpoint="simulated", slots=10)
    with database.begin() as connection:
        store_workers.register(connection, new, database_now(connection) - ago)


def states_of(database: Database, batch_id: str) -> dict[JobState, int]:
    with database.read() as connection:
        counts = stats.status(connection, batch_id, SystemClock().now()).jobs
    return {state: count for state, count in counts.items() if count}


def test_the_jobs_of_a_dead_process_go_back_and_their_attempts_are_lost(
    database: Database, reap: Callable[..., Reaper]
) -> None:
    a_worker(database, "dead", ago=LONG_AGO)
    batch = a_batch(database, 2)
    begin_all(database, queue_all(database, batch.id), "dead")
    assert reap().sweep() == 2
    assert states_of(database, batch.id) == {JobState.PENDING: 2}
    with database.read() as connection:
        attempts = ledger.attempts_of(connection, batch_id=batch.id)
    assert {(attempt.outcome, attempt.cost_nanos) for attempt in attempts} == {(ledger.LOST, None)}


def test_it_is_told_how_the_jobs_of_a_dead_process_stand(
    database: Database, reap: Callable[..., Reaper]
) -> None:
    a_worker(database, "dead", ago=LONG_AGO)
    (queued,) = queue_all(database, a_batch(database, 1).id)
    begin_all(database, [queued], "dead")
    told: list[Mapping[str, JobState]] = []
    reap(lost=told.append, after_loss=lambda _losses: GiveUp("lost")).sweep()
    assert told == [{queued.job_id: JobState.ERRORED}]


def test_what_a_process_ended_just_before_it_died_is_told_once(
    database: Database, reap: Callable[..., Reaper]
) -> None:
    a_worker(database, "dead", ago=LONG_AGO)
    ended = begin_and_fail(database, "dead", a_batch(database, 1).id)
    told: list[Mapping[str, JobState]] = []
    reaper = reap(lost=told.append)
    reaper.sweep()
    reaper.sweep()
    assert told == [{ended: JobState.ERRORED}]


def test_what_a_living_or_stopped_process_ended_is_its_own_to_tell(
    database: Database, reap: Callable[..., Reaper]
) -> None:
    for each in ("alive", "stopped"):
        a_worker(database, each)
        begin_and_fail(database, each, a_batch(database, 1).id)
    with database.begin() as connection:
        store_workers.leave(connection, "stopped", database_now(connection))
    told: list[Mapping[str, JobState]] = []
    reap(lost=told.append).sweep()
    assert told == []


def test_the_jobs_of_a_live_process_stay(database: Database, reap: Callable[..., Reaper]) -> None:
    a_worker(database, "alive")
    batch = a_batch(database, 2)
    begin_all(database, queue_all(database, batch.id), "alive")
    assert reap().sweep() == 0
    assert states_of(database, batch.id) == {JobState.RUNNING: 2}


def test_an_id_that_the_broker_lost_goes_back(database: Database, reap: Callable[..., Reaper]) -> None:
    batch = a_batch(database, 2)
    kept = queue_all(database, batch.id, ago=LONG_AGO)[0]
    assert reap(present={kept.job_id}).sweep() == 1
    assert states_of(database, batch.id) == {JobState.QUEUED: 1, JobState.PENDING: 1}


def test_an_id_that_may_still_be_on_its_way_to_the_broker_stays(
    database: Database, reap: Callable[..., Reaper]
) -> None:
    """A dispatcher commits first and publishes then."""
    batch, clock = a_batch(database, 2), ManualClock(SystemClock().now() + timedelta(days=1))
    with database.begin() as connection:
        pending = jobs.select_pending(connection, batch.id, "claude-sonnet-5", 100, clock.now())
        jobs.queue(connection, [job.id for job in pending], clock.now())
    clock.advance(PUBLISHING_S / 2)
    assert reap(clock=clock).sweep() == 0
    clock.advance(PUBLISHING_S)
    assert reap(clock=clock).sweep() == 2


def test_an_id_that_a_worker_may_just_have_taken_stays(
    database: Database, reap: Callable[..., Reaper]
) -> None:
    a_worker(database, "silent")
    batch = a_batch(database, 2)
    reaper = reap(taken_for=25.0)
    queue_all(database, batch.id, ago=timedelta(seconds=10))
    assert reaper.sweep() == 0
    assert reaper.sweep() == 0


@dataclass
class Redis:
    """What the reaper sees there."""

    now: float = 100.0
    in_hand: dict[str, InHand] = field(default_factory=dict)

    @property
    def facts(self) -> dict[str, Any]:
        return {
            "broker_now": lambda: self.now,
            "hands": lambda ids: {each: self.in_hand.get(each) for each in ids},
        }

    def passes(self, seconds: float, **in_hand: set[str]) -> None:
        """So long, and then each worker tells what it has."""
        self.now += seconds
        self.in_hand = {each: InHand(self.now, frozenset(ids)) for each, ids in in_hand.items()}


def test_when_a_process_dies_what_it_had_taken_goes_back_and_what_others_have_stays(
    database: Database, reap: Callable[..., Reaper]
) -> None:
    redis = Redis()
    for each in ("dying", "alive"):
        a_worker(database, each)
    batch = a_batch(database, 2)
    reaper = reap(taken_for=25.0, **redis.facts)
    waits, taken = [each.job_id for each in queue_all(database, batch.id, ago=timedelta(seconds=5))]
    redis.passes(3, alive={waits}, dying={taken})
    assert reaper.sweep() == 0
    redis.passes(3, alive={waits})
    assert reaper.sweep() == 0  # what is dead is not known to be: it has not told, and lives by its row
    with database.begin() as connection:
        store_workers.leave(connection, "dying", database_now(connection))
    assert reaper.sweep() == 1
    assert states_of(database, batch.id) == {JobState.QUEUED: 1, JobState.PENDING: 1}


def test_an_id_that_nobody_has_goes_back_as_soon_as_everybody_has_said_so(
    database: Database, reap: Callable[..., Reaper]
) -> None:
    redis = Redis()
    a_worker(database, "alive")
    reaper = reap(taken_for=25.0, **redis.facts)
    queue_all(database, a_batch(database, 1).id, ago=timedelta(seconds=5))
    redis.passes(3, alive=set())
    assert reaper.sweep() == 0  # it may have been taken since
    redis.passes(0.5, alive=set())
    assert reaper.sweep() == 0  # it may be on its way into a hand
    redis.passes(3, alive=set())
    assert reaper.sweep() == 1


def test_what_a_worker_says_it_has_stays_however_long_it_has_it(
    database: Database, reap: Callable[..., Reaper]
) -> None:
    redis = Redis()
    for each in ("alive", "silent"):
        a_worker(database, each)
    batch = a_batch(database, 2)
    reaper = reap(taken_for=25.0, **redis.facts)
    waits, _ = [each.job_id for each in queue_all(database, batch.id, ago=LONG_AGO)]
    redis.passes(3, alive={waits})
    assert reaper.sweep() == 0  # what it has taken since, it has not told yet
    redis.passes(3, alive={waits})
    assert reaper.sweep() == 1  # the silent one does not have the other: it has begun it long ago
    redis.passes(3, alive={waits})
    assert reaper.sweep() == 0
    assert states_of(database, batch.id) == {JobState.QUEUED: 1, JobState.PENDING: 1}


def test_what_a_worker_has_in_hand_is_told_in_redis(clean_redis: str) -> None:
    with RedisClient.from_url(clean_redis) as client:
        hands = Hands(client)
        told = InHand(hands.now(), frozenset({"job_1", "job_2"}))
        hands.tell("w", told)
        assert hands.of(["w", "unknown"]) == {"w": told, "unknown": None}


def test_one_sweep_ends_all_whose_deadline_has_passed(
    database: Database, reap: Callable[..., Reaper]
) -> None:
    late = SystemClock().now() - LONG_AGO
    found = [a_batch(database, 2, deadline=late).id for _ in range(3)]
    reap().sweep()
    assert [states_of(database, each) for each in found] == [{JobState.EXPIRED: 2}] * 3


def test_nothing_counts_as_lost_while_the_broker_cannot_be_asked(database: Database) -> None:
    def away() -> set[str]:
        raise Unavailable("Redis is away")

    batch = a_batch(database, 1)
    queue_all(database, batch.id, ago=LONG_AGO)
    reaper = Reaper(
        database=database, present=away, clock=SystemClock(), steady_for=lambda: 3600.0, **IN_NO_HAND
    )
    assert reaper.sweep() == 0


def test_old_heartbeats_mean_nothing_until_beats_have_gone_through_for_a_while(
    database: Database, reap: Callable[..., Reaper]
) -> None:
    a_worker(database, "silent", ago=LONG_AGO)
    batch = a_batch(database, 2)
    begin_all(database, queue_all(database, batch.id), "silent")
    assert reap(steady_for=lambda: 1.0).sweep() == 0
    assert states_of(database, batch.id) == {JobState.RUNNING: 2}


def test_a_new_leader_puts_back_what_its_predecessor_had_taken(
    database: Database, reap: Callable[..., Reaper]
) -> None:
    batch = a_batch(database, 2)
    queue_all(database, batch.id, ago=timedelta(seconds=5))
    assert reap(taken_for=25.0).sweep() == 2
