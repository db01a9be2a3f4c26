"""What Redis loses in the middle of a run: no burst follows, and everything that is written again expires."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from promptmill.dimensions import Amounts, Headroom
from promptmill.limits import Ceilings, Pacing, Pool, RedisLimiter
from promptmill.limits.scripts import POOLS, PREFIX

POOL = Pool("account", "group")
CALL = Amounts(1, 1000, 200)
RATE = 20.0  # requests per second
CEILINGS = Ceilings(60 * RATE, None, None)
SAID = Headroom(60 * RATE, 60 * RATE, 6_000_000, 6_000_000, 1_200_000, 1_200_000)
HORIZON = 1.0
GENTLE = 0.2


@pytest.fixture
async def client(clean_redis: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(clean_redis, decode_responses=True) as client:
        yield client


class Traffic:
    """Calls that never stop coming, from two processes."""

    def __init__(self, url: str) -> None:
        # The run before is at its full pace at once; a ramp of ours is what must be seen after the loss.
        quick = Pacing(ramp_doubling=1000.0, ramp_start=1.0)
        self.limiters = [RedisLimiter(url, ceilings=lambda _: CEILINGS, pacing=quick) for _ in range(2)]
        self.starts: list[float] = []
        self.clock = asyncio.get_running_loop().time

    async def call(self, limiter: RedisLimiter) -> None:
        while True:
            async with limiter.permit(POOL, CALL, patience=60) as call:
                self.starts.append(self.clock())
                await asyncio.sleep(0.2)
                call.used(CALL, SAID)

    async def close(self) -> None:
        for limiter in self.limiters:
            await limiter.aclose()

    def within(self, begin: float, end: float) -> int:
        return sum(begin <= start < end for start in self.starts)


async def measure(client: Redis, delays: list[float], over: asyncio.Event) -> None:
    """How long the machine keeps Redis, and who waits for it, from going on.

    It is told when it is over and not cancelled: on Python 3.11 the client's `wait_for` now and then takes that for its own.
    """
    clock = asyncio.get_running_loop().time
    while not over.is_set():
        began = clock()
        await client.ping()
        await asyncio.sleep(0.01)
        delays.append(clock() - began - 0.01)


async def test_nothing_bursts_when_redis_forgets_everything_in_mid_run(
    clean_redis: str, client: Redis
) -> None:
    traffic = Traffic(clean_redis)
    calls = [asyncio.create_task(traffic.call(limiter)) for limiter in traffic.limiters for _ in range(15)]
    delays: list[float] = []
    over = asyncio.Event()
    measuring = asyncio.create_task(measure(client, delays, over))
    while len(traffic.starts) < 2 * RATE:  # noqa: ASYNC110  # it does run
        await asyncio.sleep(0.02)
    for _ in range(3):
        await client.flushall()
        await asyncio.sleep(1)
    over.set()
    await measuring
    for task in calls:
        task.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    await traffic.close()
    late = 0.3 + max(delays)  # s by which this machine may have woken a call too late
    for begin in traffic.starts:
        assert traffic.within(begin, begin + 1.0) <= RATE * (1.0 + late) + 1


async def test_the_start_after_a_loss_is_gentle(clean_redis: str, client: Redis) -> None:
    # Without limits of tokens: what is taken for them while none is known is slower than any gentle start.
    async with RedisLimiter(clean_redis, ceilings=lambda _: Ceilings(60 * RATE, 0, 0)) as limiter:
        async with limiter.permit(POOL, CALL, patience=5) as call:
            call.used(CALL, SAID)
        waiting = [asyncio.create_task(limiter.acquire(POOL, CALL, patience=60)) for _ in range(40)]
        await waiting[3]
        await client.flushall()
        begun = asyncio.get_running_loop().time()
        first = sum(each.done() for each in waiting)
        await asyncio.sleep(2)
        granted = sum(each.done() for each in waiting) - first
        elapsed = asyncio.get_running_loop().time() - begun
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        # What had been granted ahead of the loss and was about to begin, and then a fifth of the limit, growing.
        assert 0 < granted <= GENTLE * RATE * 1.2 * (elapsed + 0.3) + 1


async def test_every_key_that_the_limiter_writes_expires(clean_redis: str, client: Redis) -> None:
    at_once = Pacing(ramp_start=1.0)
    dying = RedisLimiter(client, ceilings=lambda _: CEILINGS, pacing=at_once, process="dying")
    await dying.acquire(POOL, CALL, patience=1)
    await client.zadd(f"{PREFIX}{{{POOL.tag}}}:processes", {"dying": 1.0})
    async with RedisLimiter(clean_redis, ceilings=lambda _: CEILINGS, pacing=at_once) as limiter:
        await limiter.teach(POOL, Ceilings(1000, 450_000, 90_000))
        permits = [await limiter.acquire(POOL, CALL, patience=5) for _ in range(4)]
        await limiter.observe(permits[0], 100, SAID)
        await limiter.settle(permits[1], CALL, SAID)
        await limiter.penalise(permits[2], status=529, retry_after=None)
        await limiter.beat()
        await limiter.beat()
        lifetimes = {name: await client.ttl(name) async for name in client.scan_iter()}
    kinds = {name.removeprefix(f"{PREFIX}{{{POOL.tag}}}:").split(":", maxsplit=1)[0] for name in lifetimes}
    assert kinds == {"record", "processes", "permits", "expired", POOLS.split(":", maxsplit=1)[0]}
    assert all(seconds > 0 for seconds in lifetimes.values()), lifetimes
    await dying.aclose()


async def test_the_list_of_pools_comes_back_with_the_next_beat(clean_redis: str, client: Redis) -> None:
    async with RedisLimiter(clean_redis, ceilings=lambda _: CEILINGS) as limiter:
        await limiter.acquire(POOL, CALL, patience=1)
        await client.flushall()
        assert await limiter.pools() == []
        await limiter.beat()
        assert await limiter.pools() == [POOL]
