"""What the database and the limiter believe of this process, compared with what it does. Every half minute.

A row that says `running` here and is unknown here is a lease without a job: its write was refused, or its task
broke in a way nobody thought of. As long as this process lives no reaper would touch it, so the process does it
itself. The same for permits. Each change is guarded, so a comparison that was overtaken changes nothing.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from redis import Redis
from redis.exceptions import RedisError

from promptmill.errors import Unavailable
from promptmill.limits import Pool
from promptmill.limits.scripts import Keys
from promptmill.store import workers as store_workers
from promptmill.store.database import Database, database_now
from workers.permits import WatchedLimiter
from workers.put_right import Fault, PutRight


@dataclass(slots=True)
class Reconciliation:
    """One process's comparison.

    Args:
        on_hand: ids of the jobs that this process works on now, from before their lease until after their end.
    """

    database: Database
    redis: "Redis"
    limiter: WatchedLimiter
    worker_id: str
    on_hand: Callable[[], Collection[str]]
    put_right: PutRight

    async def compare(self) -> None:
        """One round. Runs on the loop, where jobs come and go; what waits runs on threads."""
        await self._leases()
        await self._permits()

    async def _leases(self) -> None:
        try:
            believed = await asyncio.to_thread(self._believed)
            # Looked at after the database: a job is on hand before its row says `running`, and until it does not.
            orphans = {job: token for job, token in believed.items() if job not in self.on_hand()}
            if orphans:
                taken = await asyncio.to_thread(self._take_back, orphans)
                await self._note(Fault.ORPHAN_LEASE, taken)
        except Unavailable:
            return

    async def _permits(self) -> None:
        await self._note(Fault.LEAKED_PERMIT, await self.limiter.settle_leaked())
        try:
            kept = await asyncio.to_thread(self._kept, tuple(self.limiter.pools_used))
        except RedisError:
            return
        await self._note(Fault.LEAKED_PERMIT, await self.limiter.release_unheard(kept))

    async def _note(self, fault: Fault, count: int) -> None:
        if count:
            await asyncio.to_thread(self.put_right.note, fault, count)

    def _believed(self) -> Mapping[str, int]:
        with self.database.read() as connection:
            return store_workers.running_of(connection, self.worker_id)

    def _take_back(self, orphans: Mapping[str, int]) -> int:
        with self.database.begin() as connection:
            now = database_now(connection)
            return len(store_workers.take_back(connection, self.worker_id, orphans, now))

    def _kept(self, pools: Collection[Pool]) -> dict[Pool, set[str]]:
        return {pool: self._permits_in(pool) for pool in pools}

    def _permits_in(self, pool: Pool) -> set[str]:
        ids: list[bytes] = self.redis.hkeys(Keys(pool).permits(self.worker_id))  # type: ignore[assignment]  # the sync client's answer
        return {each.decode() for each in ids}
