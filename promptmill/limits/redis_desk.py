"""One process's desk at a pool whose record lies in Redis.

Everything goes through one queue in the order it was put: reports and questions that come while a round trip
is under way share the next one. So a settlement is always counted before the next question, and a busy
process needs fewer round trips than it has calls. While Redis is away, reports are kept and questions fail.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from redis.exceptions import ResponseError

from promptmill.limits.desk import Answer, Ask, DeskUnavailable, Pulse, Release, Report
from promptmill.limits.policy import Ceilings, Pacing, Pool
from promptmill.limits.records import PoolRecord, fresh_record
from promptmill.limits.scripts import Call, Calls, read_answer, read_pulse, read_record
from promptmill.limits.wire import Wire
from promptmill.logs import get_logger

MOST_IN_ONE = 256  # scripts in one round trip
LONGEST_BACKOFF = 1.0  # s between two tries to reach Redis
LAST_CHANCE = 1.0  # s to deliver what is kept when the desk closes

log = get_logger(__name__)


@dataclass(slots=True, eq=False)
class _Parcel:
    """A script on its way. A report is kept until it is delivered, a question fails with the round trip."""

    call: Call
    reply: "asyncio.Future[Any]"
    kept: bool


class RedisDesk:
    """Access of one process to one pool.

    Args:
        now: moments to use instead of Redis's clock; for tests.
    """

    def __init__(
        self,
        wire: Wire,
        pool: Pool,
        *,
        process: str,
        ceilings: Callable[[], Ceilings],
        pacing: Pacing,
        now: Callable[[], float] | None = None,
    ) -> None:
        self._wire = wire
        self._pool = pool
        self._calls = Calls(pool, process)
        self._ceilings = ceilings
        self._pacing = pacing
        self._now: Callable[[], float | None] = now or (lambda: None)
        self._queue: deque[_Parcel] = deque()
        self._carrier: asyncio.Task[None] | None = None
        self._failures = 0
        self._used = False

    async def acquire(self, asks: Sequence[Ask]) -> Answer:
        """Grant a prefix of the asks."""
        if not self._used:
            self._register()
        if self._failures:
            await self.confirm()  # a question that is harmless to lose finds out whether Redis is back
        try:
            return read_answer(await self._ask(self._calls.acquire(asks, self._ceilings(), self._now())))
        except BaseException:
            # Nobody heard the answer: what may have been granted is given back.
            for ask in asks:
                self._put(self._calls.report(Release(ask.id), self._ceilings(), self._now()), kept=True)
            raise

    async def confirm(self) -> Pulse:
        """Whether permits still hold."""
        return read_pulse(await self._ask(self._calls.confirm(self._now())))

    async def report(self, report: Report) -> None:
        """Take a report; returns when it is delivered, or at once while Redis is away."""
        delivered = self._put(self._calls.report(report, self._ceilings(), self._now()), kept=True)
        if not self._failures:
            await delivered

    async def teach(self, limits: Ceilings) -> None:
        """Take over limits as the Rate Limits API states them."""
        self._register()
        await self._ask(self._calls.teach(limits, self._ceilings(), self._now()))

    async def forget(self) -> bool:
        """Forget the record; whether there was one."""
        return bool(await self._ask(self._calls.forget()))

    async def peek(self) -> tuple[PoolRecord, float]:
        """The record as it is; a fresh one where nobody has used the pool."""
        record, now = read_record(await self._ask(self._calls.peek(self._now())))
        return record or fresh_record(now, self._ceilings(), self._pacing), now

    async def beat(self) -> None:
        """Say that this process lives, and give up the permits of those that do not."""
        if self._used:
            self._register()
        for dead in await self._ask(self._calls.beat(self._now())):
            name = dead.decode() if isinstance(dead, bytes) else dead
            given_up = await self._ask(self._calls.expire(name, self._now()))
            log.info("permits_expired", pool=self._pool.tag, process=name, permits=given_up)

    async def aclose(self) -> None:
        """Deliver what is kept, if that is possible within a second."""
        if self._carrier is not None:
            await asyncio.wait([self._carrier], timeout=LAST_CHANCE)
        if self._carrier is not None:
            self._carrier.cancel()
            await asyncio.gather(self._carrier, return_exceptions=True)
        if self._queue:
            log.warning("reports_undelivered", pool=self._pool.tag, reports=len(self._queue))

    def _register(self) -> None:
        """Note that the pool is in use, in the round trip of whatever comes next."""
        self._used = True
        noted = self._put(self._calls.register(self._now()), kept=False)
        noted.add_done_callback(lambda done: done.cancelled() or done.exception())  # the next beat repeats it

    async def _ask(self, call: Call) -> Any:
        return await self._put(call, kept=False)

    def _put(self, call: Call, *, kept: bool) -> "asyncio.Future[Any]":
        parcel = _Parcel(call, asyncio.get_running_loop().create_future(), kept)
        self._queue.append(parcel)
        if self._carrier is None:
            self._carrier = asyncio.create_task(self._carry())
        return parcel.reply

    async def _carry(self) -> None:
        """Send what is queued until nothing is left."""
        try:
            while self._queue:
                parcels = self._take()
                try:
                    replies = await self._wire.run([parcel.call for parcel in parcels])
                except BaseException as error:
                    self._put_back(parcels, error)
                    if not isinstance(error, DeskUnavailable):
                        raise
                    await asyncio.sleep(self._backoff(error))
                else:
                    self._failures = 0
                    for parcel, reply in zip(parcels, replies, strict=True):
                        self._deliver(parcel, reply)
        finally:
            self._carrier = None

    def _take(self) -> list[_Parcel]:
        """The next parcels, without the questions that nobody waits for any more."""
        parcels: list[_Parcel] = []
        while self._queue and len(parcels) < MOST_IN_ONE:
            parcel = self._queue.popleft()
            if parcel.kept or not parcel.reply.done():
                parcels.append(parcel)
        return parcels

    def _put_back(self, parcels: Sequence[_Parcel], error: BaseException) -> None:
        """Keep the reports, in order and ahead of all others; let the questions fail."""
        self._failures += 1
        self._queue.extendleft(reversed(parcels))
        waiting = list(self._queue)
        self._queue = deque(parcel for parcel in waiting if parcel.kept)
        for parcel in waiting:
            if parcel.reply.done():
                continue
            if parcel.kept:
                parcel.reply.set_result(None)
            elif isinstance(error, Exception):
                parcel.reply.set_exception(error)
            else:
                parcel.reply.cancel()

    def _backoff(self, why: DeskUnavailable) -> float:
        if self._failures == 1:
            log.warning("limiter_unreachable", pool=self._pool.tag, kept=len(self._queue), why=str(why))
        longest = min(LONGEST_BACKOFF, 0.05 * 2.0 ** min(self._failures, 10))
        return random.uniform(0.5, 1.0) * longest  # noqa: S311 - spreads retries, guards nothing

    def _deliver(self, parcel: _Parcel, reply: Any) -> None:
        failed = isinstance(reply, ResponseError)
        if failed:
            log.error("limiter_script_failed", script=parcel.call.script, error=str(reply))
        if parcel.reply.done():
            return
        if failed and not parcel.kept:
            parcel.reply.set_exception(DeskUnavailable(f"Redis refused the script {parcel.call.script}"))
        else:
            parcel.reply.set_result(reply)
