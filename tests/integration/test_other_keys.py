"""What workers tell each other of their keys, by a real Redis."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import SecretStr
from redis import Redis

from promptmill.claude.keys import Key, KeyRing
from promptmill.clock import SystemClock
from promptmill.routes import KEY_STATES
from workers.key_report import KeyReport
from workers.other_keys import FIRST_REST_S, HEARD_S, OtherKeys, StandingBack

GROUP = "claude-sonnet-5"
KEY = Key("main", SecretStr("one"), "x")
CLOCK = SystemClock()


@pytest.fixture
def redis(clean_redis: str) -> Iterator["Redis"]:
    with Redis.from_url(clean_redis) as client:
        yield client


def a_worker(redis: "Redis", name: str, endpoint: str = "api") -> tuple[KeyRing, OtherKeys]:
    ring, report = KeyRing([KEY]), KeyReport(redis, name, endpoint)
    report.tell(ring.states(CLOCK.now()))
    return ring, OtherKeys(redis, name, endpoint, lambda: ring.states(CLOCK.now()), report)


async def test_a_worker_whose_key_is_refused_hears_that_another_can_call(redis: Any) -> None:
    mine, others = a_worker(redis, "one")
    mine.retire(KEY, None, "401")
    assert not await others.can_call(GROUP)
    a_worker(redis, "two", endpoint="simulated")
    assert not await others.can_call(GROUP, anew=True)
    a_worker(redis, "three")
    assert await others.can_call(GROUP, anew=True)
    assert not await others.can_call(GROUP, but={"x"})


async def test_what_another_may_not_call_or_told_long_ago_does_not_count(redis: Any) -> None:
    mine, others = a_worker(redis, "one")
    theirs, _ = a_worker(redis, "two")
    theirs.retire(KEY, GROUP, "403")
    KeyReport(redis, "two", "api").tell(theirs.states(CLOCK.now()))
    assert not await others.can_call(GROUP)
    assert await others.can_call("claude-haiku-4-5")
    said = json.loads(redis.hget(KEY_STATES, "two"))
    redis.hset(KEY_STATES, "two", json.dumps({**said, "at": said["at"] - HEARD_S - 1}))
    assert not await others.can_call("claude-haiku-4-5", anew=True)
    assert mine.usable(GROUP)


async def test_a_worker_without_the_key_of_a_text_hears_that_another_has_it(redis: Any) -> None:
    _, others = a_worker(redis, "one")
    assert not await others.can_open("0a1b2c3d")
    KeyReport(redis, "two", "simulated", ("0a1b2c3d",)).tell([])
    KeyReport(redis, "three", "api", ("4e5f6a7b", "8c9d0e1f")).tell([])
    _, others = a_worker(redis, "one")
    assert [await others.can_open(each) for each in ("0a1b2c3d", "8c9d0e1f", None)] == [False, True, False]


async def test_of_two_that_lose_their_keys_the_second_to_ask_knows_of_both(redis: Any) -> None:
    (one, others_of_one), (two, others_of_two) = a_worker(redis, "one"), a_worker(redis, "two")
    one.retire(KEY, None, "401")
    two.retire(KEY, None, "401")
    assert [await others_of_one.can_call(GROUP), await others_of_two.can_call(GROUP)] == [True, False]


def test_who_stands_back_takes_nothing_then_one_and_stands_back_for_longer(monkeypatch: Any) -> None:
    now = [0.0]
    monkeypatch.setattr("workers.other_keys.time.monotonic", lambda: now[0])
    standing_back, rests = StandingBack(), []
    assert standing_back.room(9) == 9
    for _ in range(6):
        standing_back.begin()
        standing_back.begin()
        begun = now[0]
        assert standing_back.room(9) == 0
        while standing_back.is_on:
            now[0] += 1
        assert standing_back.room(9) == 1
        rests.append(now[0] - begun)
    assert rests == [FIRST_REST_S, 6, 12, 24, 30, 30]
    standing_back.over()
    assert standing_back.room(9) == 9
