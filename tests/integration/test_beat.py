"""Beat's scheduler with a real Redis: filled from the table, filled again, and silent while nobody listens."""

import json
from base64 import b64decode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from redis import Redis

from promptmill.broker import celery_app
from promptmill.ids import new_id
from promptmill.recurrence import Missed, Overlap, ScheduleState, Timetable
from promptmill.routes import ANSWER_QUEUE, RUN_DUE_TASK
from promptmill.store import schedules, workers
from promptmill.store.database import Database, database_now
from promptmill.store.schedules import NewSchedule, ScheduleRow
from promptmill.store.workers import NewWorker
from workers import beat
from workers.beat import Scheduler
from workers.refusals import fault_of

ENTRIES = "promptmill:beat::schedule"


class World:
    """A beat that holds its lock, a table of schedules, and what lies in the queue."""

    def __init__(self, database: Database, redis: "Redis", scheduler: Scheduler) -> None:
        self.database = database
        self.redis = redis
        self.beat = scheduler

    def add(self, name: str, **times: Any) -> ScheduleRow:
        with self.database.begin() as conn:
            now = database_now(conn)
            starts_at = now.replace(microsecond=0) - timedelta(seconds=2)
            timetable = Timetable(starts_at=starts_at, **(times or {"every_s": 1}))
            new = NewSchedule(
                name=name, timetable=timetable, missed=Missed.ALL, overlap=Overlap.ALLOW, endpoint="simulated",
                simulated=True, next_due=timetable.after(starts_at), what={},
            )  # fmt: skip
            return schedules.add(conn, new, now)

    def somebody_works(self) -> None:
        worker = NewWorker(id=new_id("worker"), host="h", pid=1, version="0", endpoint="simulated", slots=1)
        with self.database.begin() as conn:
            workers.register(conn, worker, database_now(conn))

    def tick(self) -> float:
        self.beat._looked_at = float("-inf")
        seconds: float = self.beat.tick()
        return seconds

    @property
    def entries(self) -> list[str]:
        return [key.decode().rpartition(":")[2] for key in self.redis.zrange(ENTRIES, 0, -1)]

    @property
    def messages(self) -> list[Any]:
        return [json.loads(each) for each in self.redis.lrange(ANSWER_QUEUE, 0, -1)]


@pytest.fixture
def world(clean_redis: str, sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("PROMPTMILL_DATABASE_URL", sqlite_url)
    monkeypatch.setenv("PROMPTMILL_REDIS_URL", clean_redis)
    app = celery_app(clean_redis)
    app.loader.import_default_modules()  # as beat does: it knows the tasks
    scheduler = Scheduler(app, max_interval=2)
    beat.acquire_distributed_beat_lock(beat._Holder(scheduler))
    database = Database.open(sqlite_url)
    with Redis.from_url(clean_redis) as redis:
        yield World(database, redis, scheduler)
        scheduler.close()
    database.close()
    app.close()


def test_a_due_schedule_wakes_a_worker_by_its_name(world: World) -> None:
    world.somebody_works()
    world.add("news")

    world.tick()

    [message] = world.messages
    assert message["headers"]["task"] == RUN_DUE_TASK
    assert message["headers"]["argsrepr"] == "['news']"
    taken = SimpleNamespace(
        headers=message["headers"], body=b64decode(message["body"]), content_type=message["content-type"]
    )
    assert fault_of(taken, {RUN_DUE_TASK}) is None


def test_one_that_is_not_due_is_slept_for_as_long_as_a_change_may_take_to_be_seen(world: World) -> None:
    world.somebody_works()
    world.add("nightly", cron="0 2 1 1 *", timezone="Asia/Shanghai")

    assert world.tick() == 2
    assert world.entries == ["nightly"]
    assert world.messages == []


def test_while_no_worker_lives_nothing_is_left_in_the_queue(world: World) -> None:
    world.add("news")

    world.tick()

    assert world.messages == []
    assert world.entries == ["news"]


def test_what_is_added_paused_changed_or_removed_is_seen_at_the_next_look(world: World) -> None:
    first = world.add("first")
    world.add("second", every_s=3600)
    world.tick()
    assert set(world.entries) == {"first", "second"}

    with world.database.begin() as conn:
        now = database_now(conn)
        schedules.set_state(conn, first.id, ScheduleState.PAUSED, None, now)
    world.tick()
    assert world.entries == ["second"]

    with world.database.begin() as conn:
        schedules.remove(conn, schedules.find(conn, "second").id)
    world.add("second", cron="0 2 1 1 *")
    world.tick()
    definition = world.redis.hget("promptmill:beat:schedule:second", "definition")
    assert json.loads(definition or b"")["schedule"]["cron"] == "0 2 1 1 *"


def test_a_redis_that_lost_everything_is_filled_again_and_the_lock_taken_again(world: World) -> None:
    world.somebody_works()
    world.add("news")
    world.tick()
    world.redis.flushall()

    world.tick()  # finds the lock gone
    world.tick()

    assert world.entries == ["news"]
    assert world.redis.exists("promptmill:beat::lock")
    assert world.messages


def test_while_the_database_is_away_beat_goes_on_with_what_it_knows(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.somebody_works()
    world.add("news")
    world.tick()
    monkeypatch.setattr(world.beat, "_active", _away)

    world.tick()

    assert world.entries == ["news"]


def _away() -> list[ScheduleRow]:
    raise beat.Unavailable("the database is away")


def test_beat_needs_no_key_to_what_is_encrypted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMPTMILL_ENCRYPTION_KEYS_FILE", "/nowhere/keys")
    world.add("news")

    world.tick()

    assert world.entries == ["news"]


def test_in_an_hour_that_comes_twice_beat_sleeps_until_the_next_day(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = datetime(2026, 10, 25, 1, 4, tzinfo=UTC)
    monkeypatch.setattr(beat, "datetime", SimpleNamespace(now=lambda _zone: moment))
    times = Timetable(cron="30 2 * * *", timezone="Europe/Berlin", starts_at=moment - timedelta(days=9))

    due = beat.DueTimes(times).is_due(moment)

    assert not due.is_due
    assert due.next == timedelta(hours=24, minutes=26).total_seconds()


def test_a_redis_that_is_away_is_waited_for_from_the_start_and_said_once(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = "redis://127.0.0.1:1/0"
    monkeypatch.setenv("PROMPTMILL_DATABASE_URL", sqlite_url)
    app = celery_app(nowhere)
    app.conf.redbeat_redis_url = nowhere
    app.conf.redbeat_redis_options = {"retry": None}
    scheduler = Scheduler(app, max_interval=2)

    assert [scheduler.tick() for _ in range(3)] == [beat.AGAIN_S] * 3

    assert caplog.text.count("beat_waits_for_redis") == 1
    scheduler.close()
    app.close()
