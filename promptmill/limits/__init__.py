"""The one rate limiter: permits in all dimensions at once, shared by every process of an account."""

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
