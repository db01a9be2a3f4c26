"""What the limiter costs: Redis's time per script, and acquire + settle per second from one and four processes.

The baselines are of the same run and server: a script that does nothing, and one INCR per job by the same
client with the same number of coroutines, which is what the simplest counter would cost. Read the ratios.

    .venv/bin/python bench/limiter_cost.py [--redis URL] [--seconds 3]
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import nullcontext
from typing import Any

from redis.asyncio import Redis

from promptmill.dimensions import Amounts, Headroom
from promptmill.embedded import throwaway_redis
from promptmill.limits import Ceilings, Pacing, Pool, RedisLimiter
from promptmill.limits.desk import Ask, Release, Settlement
from promptmill.limits.scripts import Call, Calls
from promptmill.limits.wire import Wire

SCRIPTS = 4000
SLOTS = 200
PROCESSES = 4
CALL = Amounts(1, 1500, 300)
USED = Amounts(1, 1400, 250)
PLENTY = Ceilings(6e7, 6e11, 6e11)  # limits in all dimensions, none of which is ever reached
HEADROOM = Headroom(6e7, 5e7, 6e11, 5e11, 6e11, 5e11)


def main() -> None:
    options = read_options()
    if options.child:
        print(json.dumps(asyncio.run(acquire_and_settle(options.redis, options.seconds))))
        return
    with nullcontext(options.redis) if options.redis else throwaway_redis() as url:
        asyncio.run(measure_scripts(url))
        measure_throughput(url, options.seconds)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--redis", help="a server to use, which is emptied; one of our own by default")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each throughput figure")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


async def measure_scripts(url: str) -> None:
    """Redis's own account of the time per script."""
    async with Redis.from_url(url) as redis:
        await redis.flushall()
        empty = await empty_script(redis)
        print(f"{'Redis time per script':<34}{'µs':>8}{'times an empty script':>24}")
        print(f"{'a script that does nothing':<34}{empty:>8.1f}{1.0:>24.0f}")
        wire, calls = Wire(redis, Pacing()), Calls(Pool("bench", "group"), "bench")
        for name, questions in workload(calls):
            spent = await time_per_call(redis, wire, questions)
            print(f"{name:<34}{spent:>8.1f}{spent / empty:>24.0f}")


def workload(calls: Calls) -> Iterator[tuple[str, list[Call]]]:
    numbers = range(SCRIPTS)
    yield "acquire, one permit", [calls.acquire([ask(f"a{n}")], PLENTY, None) for n in numbers]
    yield (
        "acquire, 16 permits",
        [calls.acquire([ask(f"b{n}.{m}") for m in range(16)], PLENTY, None) for n in numbers[:200]],
    )
    yield "confirm", [calls.confirm(None) for _ in numbers]
    yield (
        "settle with headers",
        [calls.report(Settlement(f"a{n}", USED, HEADROOM), PLENTY, None) for n in numbers[: SCRIPTS // 2]],
    )
    yield (
        "settle",
        [calls.report(Settlement(f"a{n}", USED, None), PLENTY, None) for n in numbers[SCRIPTS // 2 :]],
    )
    yield "release", [calls.report(Release(f"b{n}.0"), PLENTY, None) for n in numbers[:200]]
    tight = Ceilings(60, 1e6, 1e6)
    yield "acquire, denied", [calls.acquire([ask(f"c{n}")], tight, None) for n in numbers]


def ask(permit: str) -> Ask:
    return Ask(permit, CALL, 15.0)


async def empty_script(redis: Redis) -> float:
    sha = await redis.script_load("return 1")
    await redis.config_resetstat()
    for _ in range(SCRIPTS // 20):
        async with redis.pipeline(transaction=False) as pipe:
            for _ in range(20):
                pipe.evalsha(sha, 1, "key")
            await pipe.execute()
    return await evalsha_time(redis)


async def time_per_call(redis: Redis, wire: Wire, questions: list[Call]) -> float:
    await wire.run([Call("confirm", questions[0].keys[:1], ("",))])
    await wire.run(questions[:1])
    await redis.config_resetstat()
    for begin in range(1, len(questions), 20):
        await wire.run(questions[begin : begin + 20])
    return await evalsha_time(redis)


async def evalsha_time(redis: Redis) -> float:
    stats: dict[str, Any] = await redis.info("commandstats")
    return float(stats["cmdstat_evalsha"]["usec_per_call"])


def measure_throughput(url: str, seconds: float) -> None:
    counter = asyncio.run(count_only(url, seconds))
    alone = asyncio.run(acquire_and_settle(url, seconds))
    results = [json.loads(child.communicate()[0]) for child in children(url, seconds)]
    total = sum(result["rate"] for result in results)
    print(
        f"\n{'per second, ' + str(SLOTS) + ' coroutines each':<34}{'jobs/s':>8}{'CPU µs/job':>14}{'of INCR':>10}"
    )
    for name, rate, cpu in (
        ("one INCR per job", counter["rate"], counter["cpu"]),
        ("acquire + settle, one process", alone["rate"], alone["cpu"]),
        (
            f"acquire + settle, {PROCESSES} processes",
            total,
            sum(each["cpu"] for each in results) / len(results),
        ),
    ):
        print(f"{name:<34}{rate:>8.0f}{cpu:>14.0f}{rate / counter['rate']:>10.2f}")


def children(url: str, seconds: float) -> list[subprocess.Popen[str]]:
    command = [sys.executable, __file__, "--child", "--redis", url, "--seconds", str(seconds)]
    return [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(PROCESSES)]


async def acquire_and_settle(url: str, seconds: float) -> dict[str, float]:
    limiter, pool = RedisLimiter(url, ceilings=lambda _: PLENTY), Pool("bench", "throughput")

    async def job() -> None:
        permit = await limiter.acquire(pool, CALL, patience=60)
        await limiter.settle(permit, USED, HEADROOM)

    figures = await rate_of(job, seconds)
    await limiter.aclose()
    return figures


async def count_only(url: str, seconds: float) -> dict[str, float]:
    async with Redis.from_url(url, max_connections=SLOTS) as redis:
        return await rate_of(lambda: redis.incr("counter"), seconds)


async def rate_of(job: Callable[[], Awaitable[Any]], seconds: float) -> dict[str, float]:
    """Jobs per second and CPU µs per job of this process, with all coroutines at work."""
    done = 0
    begun, cpu = time.monotonic(), time.process_time()

    async def slot() -> None:
        nonlocal done
        while time.monotonic() - begun < seconds:
            await job()
            done += 1

    await asyncio.gather(*(slot() for _ in range(SLOTS)))
    elapsed = time.monotonic() - begun
    return {"rate": done / elapsed, "cpu": 1e6 * (time.process_time() - cpu) / done}


if __name__ == "__main__":
    main()
