"""How this process fares, told in Redis every few seconds for metrics: how late its event loop is, and its memory.

The idea: a loop that is late answers late whatever the limits allow, and nothing else shows it from outside.
"""

import asyncio
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from redis import Redis

from promptmill.routes import VITALS

KEPT_S: Final = 30
PROBE_S: Final = 0.25
"""Between two looks at how late the loop is; four a second cost it nothing to speak of."""
_STATM = Path("/proc/self/statm")


@dataclass(slots=True)
class Vitals:
    """Measured on the loop that it is about; `probe` runs beside the jobs, `tell` every few seconds."""

    redis: "Redis"
    worker_id: str
    now: Callable[[], float] = field(default_factory=lambda: asyncio.get_running_loop().time)
    _latest: float = 0.0

    async def probe(self) -> None:
        """Sleep a little, and note by how much that took too long."""
        due = self.now() + PROBE_S
        await asyncio.sleep(PROBE_S)
        self._latest = max(self._latest, self.now() - due)

    async def tell(self) -> None:
        """The worst since the last time, and the memory held now.

        Raises:
            RedisError: Redis is away.
        """
        worst, self._latest = max(0.0, self._latest), 0.0
        told = json.dumps({"loop_lag_s": round(worst, 4), "memory_bytes": resident_memory()})
        await asyncio.to_thread(self.redis.set, VITALS + self.worker_id, told, ex=KEPT_S)


def resident_memory() -> int:
    """Bytes; 0 where the system does not say (it is no Linux)."""
    try:
        pages = int(_STATM.read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
