"""How a worker fares is told while it lives, and gone soon after."""

import asyncio
import json
import time

from redis import Redis

from promptmill.routes import VITALS
from workers.vitals import KEPT_S, PROBE_S, Vitals, resident_memory


async def test_a_loop_that_stood_still_is_told_once(clean_redis: str) -> None:
    with Redis.from_url(clean_redis) as redis:
        vitals = Vitals(redis, "worker_1")
        probing = asyncio.create_task(vitals.probe())
        await asyncio.sleep(0)
        time.sleep(PROBE_S + 0.2)  # noqa: ASYNC251  # the loop stands still
        await probing
        await vitals.tell()
        first = json.loads(redis.get(VITALS + "worker_1") or b"")
        await vitals.tell()
        second = json.loads(redis.get(VITALS + "worker_1") or b"")

        assert first["loop_lag_s"] >= 0.2
        assert second["loop_lag_s"] == 0
        assert 0 < redis.ttl(VITALS + "worker_1") <= KEPT_S


def test_memory_is_told_in_bytes() -> None:
    assert 10_000_000 < resident_memory() < 10_000_000_000
