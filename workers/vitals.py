"""How this process fares, told in Redis every few seconds for metrics: how late its event loop is, and its memory.

The idea: a loop that is late answers late whatever the limits allow, and nothing else shows it from outside.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from redis import Redis

from promptmill.routes import VITALS

KEPT_S: Final = 30
_STATM = Path("/proc/self/statm")


@dataclass(frozen=True, slots=True)
class Vitals:
    """Tells them of one worker; `loop_lag` is how many seconds late its loop was of late, at worst."""

    redis: "Redis"
    worker_id: str
    loop_lag: Callable[[], float]

    def tell(self) -> None:
        """As they are now.

        Raises:
            RedisError: Redis is away.
        """
        told = {"loop_lag_s": round(self.loop_lag(), 4), "memory_bytes": resident_memory()}
        self.redis.set(VITALS + self.worker_id, json.dumps(told), ex=KEPT_S)


def resident_memory() -> int:
    """Bytes; 0 where the system does not say (it is no Linux)."""
    try:
        pages = int(_STATM.read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
