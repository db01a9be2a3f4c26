"""The one rate limiter: permits in all dimensions at once, shared by every process of an account.

It needs no queue. Every program that names the same Redis and the same pool shares its limits:

    pool = Pool(account="my account", group="claude-haiku-5-5")
    async with RedisLimiter("redis://…") as limiter:
        async with limiter.permit(pool, Amounts(1, 1500, 300), patience=60) as call:
            reply = await client.post(…)
            call.used(Amounts(1, 1432, 280), read_headroom(reply.headers))

`Amounts` are one request, its input tokens and its output tokens: first as guessed, then as used. Limits are
learned from the headers; `ceilings=lambda pool: Ceilings(1000, 450_000, 90_000)` sets some that are never exceeded.
A call waits before it is made, at most `patience` seconds (`LimitReached`). What else can be said about it is in
`Call`: it was refused, or never sent. `async with limiter` also says every 5 s that the program lives; without
that its permits are given up. `BlockingLimiter` is the same for threads, `LocalLimiter` for one process without
Redis. Whole programs: examples/limiter_alone.py and examples/limiter_blocking.py.
"""

from promptmill.limits.blocking import BlockingLimiter
from promptmill.limits.desk import DeskUnavailable
from promptmill.limits.hindrance import Hindrance
from promptmill.limits.limiter import Limiter
from promptmill.limits.local import LocalLimiter, LocalPools
from promptmill.limits.permitted import Call
from promptmill.limits.policy import Ceilings, Pacing, Permit, Pool, check_size, learn_everything
from promptmill.limits.pool_state import DimensionState, LimitSource, PoolState
from promptmill.limits.redis_limiter import RedisLimiter

__all__ = [
    "BlockingLimiter",
    "Call",
    "Ceilings",
    "DeskUnavailable",
    "DimensionState",
    "Hindrance",
    "LimitSource",
    "Limiter",
    "LocalLimiter",
    "LocalPools",
    "Pacing",
    "Permit",
    "Pool",
    "PoolState",
    "RedisLimiter",
    "check_size",
    "learn_everything",
]
