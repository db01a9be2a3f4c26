"""What is left over in Redis is told by the audit, and a Redis that is away changes nothing."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from redis import Redis

from producers.auditing import audit
from promptmill import settings
from promptmill.broker import Ticket, celery_app, publish
from promptmill.clock import SystemClock
from promptmill.dimensions import Amounts
from promptmill.limits import Ceilings, Pool, RedisLimiter
from promptmill.routes import PUT_RIGHT
from promptmill.settings import Settings
from promptmill.store import jobs, leases, workers
from promptmill.store.batches import BatchRow
from promptmill.store.database import Database
from promptmill.testing import a_batch
from tests.claims import a_claim


def _settings(redis_url: str, database_url: str, folder: Path) -> Settings:
    return settings.load(environ={"REDIS_URL": redis_url, "DATABASE_URL": database_url}, folder=folder)


def _batch(database_url: str) -> BatchRow:
    database = Database.open(database_url)
    try:
        return a_batch(database, 2)
    finally:
        database.close()


async def _take_a_permit(redis_url: str) -> None:
    limiter = RedisLimiter(redis_url, ceilings=lambda _: Ceilings(6000, 0, 0), process="gone")
    await limiter.acquire(Pool("acme", "claude-sonnet-5"), Amounts(1, 10, 10), patience=5.0)
    await limiter.aclose()


def test_where_nothing_is_left_nothing_is_said(clean_redis: str, sqlite_url: str, tmp_path: Path) -> None:
    batch = _batch(sqlite_url)

    report = audit(batch.name, settings=_settings(clean_redis, sqlite_url, tmp_path))

    assert (report.ok, report.notes) == (True, ())


def test_ids_and_permits_of_nobody_are_told_and_break_nothing(
    clean_redis: str, sqlite_url: str, tmp_path: Path
) -> None:
    batch = _batch(sqlite_url)
    publish(celery_app(clean_redis), [Ticket("job_of_yore", 1, "sums", "claude-sonnet-5", 1)])
    asyncio.run(_take_a_permit(clean_redis))

    report = audit(batch.name, settings=_settings(clean_redis, sqlite_url, tmp_path))

    assert report.ok
    assert {note.name: note.count for note in report.notes} == {"permits_left": 1, "ids_left": 1}


def test_what_workers_put_right_is_told_and_breaks_nothing(
    clean_redis: str, sqlite_url: str, tmp_path: Path
) -> None:
    batch = _batch(sqlite_url)
    with Redis.from_url(clean_redis) as redis:
        redis.hincrby(PUT_RIGHT, "leases_without_a_job", 3)

    report = audit(batch.name, settings=_settings(clean_redis, sqlite_url, tmp_path))

    assert report.ok
    [note] = report.notes
    assert (note.name, note.count) == ("put_right_leases_without_a_job", 3)
    assert "leases without a job" in note.what


@pytest.mark.parametrize(("dead_after_s", "holds"), [("60", True), ("10", False)])
def test_a_worker_is_alive_for_as_long_as_the_setting_says(
    clean_redis: str, sqlite_url: str, tmp_path: Path, dead_after_s: str, *, holds: bool
) -> None:
    _run_one_job(sqlite_url, seen=timedelta(seconds=30))
    surroundings = {
        "REDIS_URL": clean_redis,
        "DATABASE_URL": sqlite_url,
        "PROMPTMILL_WORKER__DEAD_AFTER_S": dead_after_s,
    }

    report = audit(_NAME, settings=settings.load(environ=surroundings, folder=tmp_path))

    assert {each.name: each.ok for each in report.checks}["running_with_worker"] is holds


_NAME = "under way"


def _run_one_job(database_url: str, *, seen: timedelta) -> None:
    """A batch with one running job, whose worker was heard of so long ago."""
    database = Database.open(database_url)
    now = SystemClock().now() - seen
    batch = a_batch(database, 1, name=_NAME)
    me = workers.NewWorker(id="w", host="here", pid=1, version="0", endpoint=None, slots=1)
    with database.begin() as connection:
        workers.register(connection, me, now)
        [group] = jobs.groups_pending(connection, now)[batch.id]
        pending = jobs.select_pending(connection, batch.id, group, 1, now)
        [queued] = jobs.queue(connection, [each.id for each in pending], now)
        claim = a_claim(queued, now, reserved_nanos=1)
        assert leases.begin(connection, [claim], me.id, now)
    database.close()


def test_without_redis_the_audit_is_the_same(sqlite_url: str, tmp_path: Path) -> None:
    batch = _batch(sqlite_url)

    report = audit(batch.name, settings=_settings("redis://127.0.0.1:1/0", sqlite_url, tmp_path))

    assert (report.ok, report.notes) == (True, ())
