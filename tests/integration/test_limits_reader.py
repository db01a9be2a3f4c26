"""Looking at the limiter from outside: it leaves no trace, and waits neither long nor often for a Redis that is away."""

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from producers import limits_now, limits_reader
from producers.limits_now import watch_limits
from producers.limits_reader import LimitsReader
from promptmill import settings
from promptmill.errors import Unavailable
from promptmill.limits import Ceilings, Pool, limiter
from promptmill.settings import Settings
from promptmill.store.database import Database

POOL = Pool("research", "claude-haiku-5-5")


def of_redis(url: str, folder: Path, **environment: str) -> Settings:
    return settings.load(environ={"REDIS_URL": url, **environment}, folder=folder)


@contextmanager
def a_redis_that_never_answers() -> Iterator[tuple[str, Callable[[], int]]]:
    """Its address, and what tells how many connections were made to it: they wait in the system's line until then."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)

        def made() -> int:
            count = 0
            with suppress(BlockingIOError):
                while True:
                    server.accept()[0].close()
                    count += 1
            return count

        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0", made


def test_who_looks_is_no_process_among_the_workers(
    clean_redis: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limiter, "BEAT_EVERY", 0.001)
    with LimitsReader(of_redis(clean_redis, tmp_path)) as reader, Redis.from_url(clean_redis) as redis:
        reader.teach({POOL: Ceilings(50, None, 0)})
        for _ in range(50):
            assert [state.pool for state in reader.states()] == [POOL]
        assert not list(redis.scan_iter("*:processes"))


def test_a_look_can_be_taken_where_an_event_loop_runs(clean_redis: str, tmp_path: Path) -> None:
    async def look() -> int:
        with LimitsReader(of_redis(clean_redis, tmp_path)) as reader:
            return len(reader.states())

    assert asyncio.run(look()) == 0


def test_a_redis_that_does_not_answer_is_waited_for_briefly_and_not_asked_again_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert limits_reader.PATIENCE_S == 2.0
    assert limits_reader.PAUSE_S == 5.0
    monkeypatch.setattr(limits_reader, "PATIENCE_S", 0.2)
    monkeypatch.setattr(limits_reader, "PAUSE_S", 600.0)  # on a busy machine five looks may take five seconds
    with (
        a_redis_that_never_answers() as (url, made),
        LimitsReader(of_redis(url, tmp_path)) as reader,
    ):
        took = []
        for _ in range(5):
            began = time.monotonic()
            with pytest.raises(Unavailable, match="does not answer"):
                reader.states()
            took.append(time.monotonic() - began)
        assert min(took[1:]) < 0.2 <= took[0]
        assert made() <= 1  # none, where the machine stood still until the patience was over


def test_it_is_asked_again_after_a_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None]
) -> None:
    monkeypatch.setattr(limits_reader, "PATIENCE_S", 0.1)
    monkeypatch.setattr(limits_reader, "PAUSE_S", 0.0)
    with (
        a_redis_that_never_answers() as (url, made),
        LimitsReader(of_redis(url, tmp_path)) as reader,
    ):

        def is_asked() -> bool:
            with pytest.raises(Unavailable):
                reader.states()
            return made() == 1

        for _ in range(2):
            wait_until(is_asked)


def test_watching_opens_the_database_once(
    clean_redis: str, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    open_one = Database.open

    def count(url: str, *how: Any) -> Database:
        opened.append(url)
        return open_one(url, *how)

    monkeypatch.setattr(Database, "open", count)
    moments = watch_limits(of_redis(clean_redis, tmp_path, DATABASE_URL=database_url), every_s=0.0)

    assert [moment.backlog for moment in islice(moments, 5)] == [limits_now.Backlog()] * 5
    assert opened == [database_url]
