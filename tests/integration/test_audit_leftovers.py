"""What is left over in Redis is told by the audit, and a Redis that is away changes nothing."""

import asyncio
from pathlib import Path

from producers.auditing import audit
from promptmill import settings
from promptmill.broker import Ticket, celery_app, publish
from promptmill.dimensions import Amounts
from promptmill.limits import Ceilings, Pool, RedisLimiter
from promptmill.settings import Settings
from promptmill.store.batches import BatchRow
from promptmill.store.database import Database
from promptmill.testing import a_batch


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


def test_without_redis_the_audit_is_the_same(sqlite_url: str, tmp_path: Path) -> None:
    batch = _batch(sqlite_url)

    report = audit(batch.name, settings=_settings("redis://127.0.0.1:1/0", sqlite_url, tmp_path))

    assert (report.ok, report.notes) == (True, ())
