"""Redis is killed, emptied, frozen, full, or another server takes its place: it costs time, and nothing else.

One worker lives through all of it.
"""

import signal
from collections.abc import Iterator
from typing import Any

import pytest
from redis.exceptions import ResponseError


@pytest.fixture(autouse=True)
def made_whole(standing_mill: Any) -> Iterator[None]:
    """What a test that failed did to the server is undone for the next."""
    yield
    make_whole(standing_mill)


def make_whole(mill: Any) -> None:
    """The server works again."""
    mill.redis.signal(signal.SIGCONT)
    with mill.redis.client() as redis:
        redis.replicaof("NO", "ONE")
        redis.config_set("maxmemory", 0)
        redis.config_set("save", "")


def refusals(mill: Any) -> int:
    """How often the worker's limiter has met a Redis that it cannot use; said once each time."""
    return int(mill.logs().count("limiter_unreachable"))


def until_refused(mill: Any, error: str, *, since: int) -> None:
    """Until Redis refuses writes with this error, and the worker has met it."""
    with mill.redis.client() as redis, pytest.raises(ResponseError, match=error):
        redis.set("promptmill-test", "x")
    mill.claude.set_scenario()  # now calls end, whose permits are to be given back
    mill.wait_until(lambda: refusals(mill) > since)


def test_killed_and_started_again_empty(standing_mill: Any, at_work: Any) -> None:
    def act() -> None:
        standing_mill.redis.kill()
        standing_mill.redis.start()

    at_work(act)


def test_emptied_again_and_again(standing_mill: Any, at_work: Any) -> None:
    def act() -> None:
        with standing_mill.redis.client() as redis:
            for _ in range(3):
                redis.flushall()
                standing_mill.wait_until(standing_mill.is_led)

    at_work(act)


def test_a_replica_takes_over_under_the_same_address(standing_mill: Any, at_work: Any, tmp_path: Any) -> None:
    replica = standing_mill.redis.replica(tmp_path / "replica")
    at_work(lambda: standing_mill.redis.fail_over_to(replica))


def test_it_only_reads_for_a_while_as_one_does_that_lost_its_place(standing_mill: Any, at_work: Any) -> None:
    def act() -> None:
        met = refusals(standing_mill)
        with standing_mill.redis.client() as redis:
            redis.replicaof("127.0.0.1", "1")
            until_refused(standing_mill, "read only", since=met)
        make_whole(standing_mill)

    at_work(act)


def test_its_memory_is_full_for_a_while(standing_mill: Any, at_work: Any) -> None:
    def act() -> None:
        met = refusals(standing_mill)
        with standing_mill.redis.client() as redis:
            redis.config_set("maxmemory", 1)
            until_refused(standing_mill, "maxmemory", since=met)
        make_whole(standing_mill)

    at_work(act)


def test_it_cannot_write_to_its_disk_for_a_while(standing_mill: Any, at_work: Any, tmp_path: Any) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()

    def act() -> None:
        met = refusals(standing_mill)
        with standing_mill.redis.client() as redis:
            redis.config_set("dir", str(gone))
            redis.config_set("save", "3600 1000000")  # only one that saves by itself minds that it cannot
            gone.rmdir()
            redis.bgsave()
            standing_mill.wait_until(lambda: redis.info("persistence")["rdb_last_bgsave_status"] == "err")
            until_refused(standing_mill, "MISCONF", since=met)
        make_whole(standing_mill)

    at_work(act)


@pytest.mark.chaos
def test_it_stands_still_for_longer_than_anybody_waits(standing_mill: Any, at_work: Any) -> None:
    def act() -> None:
        met = refusals(standing_mill)
        standing_mill.redis.signal(signal.SIGSTOP)
        standing_mill.claude.set_scenario()
        standing_mill.wait_until(lambda: refusals(standing_mill) > met, timeout=30)
        make_whole(standing_mill)

    at_work(act)
