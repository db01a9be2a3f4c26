"""Who dispatches: one worker at a time for each endpoint, by a lock in Redis that expires by itself.

The lock saves work, it does not guard correctness: two leaders at once are harmless, because every change
they make is guarded in the database.
"""

from dataclasses import dataclass

from redis import Redis
from redis.exceptions import RedisError

from promptmill.routes import DISPATCHER_LOCK


@dataclass(slots=True)
class Leadership:
    """A claim on the dispatcher's lock by one worker; `lasts` seconds without renewal, then it is free.

    Simulated and real workers may share a Redis; each kind dispatches its own batches.
    """

    redis: "Redis"
    worker_id: str
    endpoint: str
    lasts: float = 6.0

    def hold(self) -> bool:
        """Take or renew the lock; False while another has it or Redis is away."""
        try:
            if self.redis.set(self._lock, self.worker_id, nx=True, px=int(self.lasts * 1000)):
                return True
            if self._holder() != self.worker_id:
                return False
            return bool(self.redis.set(self._lock, self.worker_id, xx=True, px=int(self.lasts * 1000)))
        except RedisError:
            return False

    def resign(self) -> None:
        """Give the lock up, if it is ours; best effort."""
        try:
            if self._holder() == self.worker_id:
                self.redis.delete(self._lock)
        except RedisError:
            return

    @property
    def _lock(self) -> str:
        return DISPATCHER_LOCK + self.endpoint

    def _holder(self) -> str | None:
        value = self.redis.get(self._lock)
        return value.decode() if isinstance(value, bytes) else None
