"""Permits whose tasks have ended without a word are settled; those in other hands are left alone."""

import asyncio

from redis import Redis

from promptmill.dimensions import Amounts
from promptmill.limits import Permit, Pool
from promptmill.limits.scripts import Keys
from workers.permits import WatchedLimiter

POOL = Pool("default", "claude-sonnet-5")
EACH = Amounts(1, 10, 10)


def _kept(url: str) -> set[str]:
    with Redis.from_url(url) as redis:
        return {each.decode() for each in redis.hkeys(Keys(POOL).permits("me"))}


async def test_a_permit_whose_task_has_ended_is_settled_and_that_of_a_running_one_is_not(
    clean_redis: str,
) -> None:
    limiter = WatchedLimiter(clean_redis, process="me")
    begun, done = asyncio.Event(), asyncio.Event()
    held: list[Permit] = []

    async def forget_it() -> None:
        await limiter.acquire(POOL, EACH, patience=5)

    async def keep_it() -> None:
        held.append(await limiter.acquire(POOL, EACH, patience=5))
        begun.set()
        await done.wait()
        await limiter.settle(held[0], EACH)

    await asyncio.create_task(forget_it())
    keeping = asyncio.create_task(keep_it())
    await begun.wait()
    assert await limiter.settle_leaked() == 1
    assert _kept(clean_redis) == {held[0].id}
    done.set()
    await keeping
    assert await limiter.settle_leaked() == 0
    assert _kept(clean_redis) == set()
    await limiter.aclose()


async def test_a_permit_that_only_the_record_knows_is_given_back_the_second_time_it_is_seen(
    clean_redis: str,
) -> None:
    limiter, forgotten = WatchedLimiter(clean_redis, process="me"), WatchedLimiter(clean_redis, process="me")
    own = await limiter.acquire(POOL, EACH, patience=5)
    await forgotten.acquire(POOL, EACH, patience=5)
    assert await limiter.release_unheard({POOL: _kept(clean_redis)}) == 0
    assert await limiter.release_unheard({POOL: _kept(clean_redis)}) == 1
    assert _kept(clean_redis) == {own.id}
    await limiter.release(own)
    await limiter.aclose()
    await forgotten.aclose()
