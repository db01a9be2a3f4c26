"""The waiting calls of one process at one pool, served in order.

They do not poll each on its own: one coroutine asks for as many permits as the waiting calls can use,
sleeps as long as its ticket says, and hands out what it got. It lives only while somebody waits.
"""

import asyncio
import random
from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count

from promptmill.clock import Clock
from promptmill.dimensions import Amounts, Dimension
from promptmill.errors import LimitReached
from promptmill.limits.desk import Answer, Ask, Denial, Desk, DeskUnavailable, Pulse, Release
from promptmill.limits.policy import Pacing, Permit, Pool, too_large

MOST_ASKS = 128  # in one question; Redis is busy for about 1 ms if all are granted
PULSE_LASTS = 0.05  # s; a pulse this young is as good as a new one
PAUSE_ROUNDING = 0.005  # s; a pause this short is over
LONGEST_BACKOFF = 1.0  # s between two tries to reach a desk


@dataclass(frozen=True, slots=True)
class _Grant:
    """A permit on its way to the call that waits for it."""

    permit: str
    received_at: float
    start: float
    generation: int


@dataclass(slots=True, eq=False)
class _Waiter:
    """A waiting call; its number is its place in line, also when it has to wait again."""

    number: int
    amounts: Amounts
    deadline: float
    granted: asyncio.Future[_Grant] = field(init=False)


class Acquirer:
    """Gets permits for the calls of this process from one desk."""

    def __init__(
        self, pool: Pool, desk: Desk, *, pacing: Pacing, clock: Clock, new_id: Callable[[], str]
    ) -> None:
        self._pool = pool
        self._desk = desk
        self._pacing = pacing
        self._clock = clock
        self._new_id = new_id
        self._numbers = count()
        self._waiting: list[_Waiter] = []
        self._serving: asyncio.Task[None] | None = None
        self._in_line = False
        self._next_ask_at = 0.0
        self._pulse = Pulse(0, 0.0)
        self._pulse_at = float("-inf")
        self._refused_at = float("-inf")
        self._resting: asyncio.Task[None] | None = None
        self._confirming: asyncio.Task[Pulse] | None = None

    @property
    def waiting(self) -> int:
        """Calls that wait for a permit."""
        return sum(not waiter.granted.done() for waiter in self._waiting)

    async def acquire(self, amounts: Amounts, patience: float) -> Permit:
        """Wait for a permit whose call may begin when this returns.

        Raises:
            LimitReached: it would take longer than `patience` seconds.
            RequestTooLarge: no waiting would help.
        """
        waiter = _Waiter(next(self._numbers), amounts, self._clock.monotonic() + patience)
        while True:
            grant = await self._wait_in_line(waiter)
            if await self._wait_for_start(grant):
                return Permit(grant.permit, self._pool, amounts, grant.start, grant.generation)

    def refused(self) -> None:
        """The server refused a call of this process: permits granted before are doubtful."""
        self._refused_at = self._clock.monotonic()
        self._pulse_at = float("-inf")

    def nudge(self) -> None:
        """The limits have changed: what was said about the next possible start is out of date."""
        if self._resting is not None:
            self._resting.cancel()

    async def aclose(self) -> None:
        """Turn everybody away who still waits."""
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.gather(self._serving, return_exceptions=True)
        for waiter in self._waiting:
            self._turn_away(waiter, LimitReached("the limiter is closed"))
        self._waiting.clear()

    async def _wait_in_line(self, waiter: _Waiter) -> _Grant:
        waiter.granted = asyncio.get_running_loop().create_future()
        if self._serving is not None and waiter.deadline < self._next_ask_at:
            raise self._too_late(self._next_ask_at - self._clock.monotonic(), None)
        insort(self._waiting, waiter, key=lambda other: other.number)
        if self._serving is None:
            self._serving = asyncio.create_task(self._serve())
        try:
            return await waiter.granted
        except asyncio.CancelledError:
            granted = waiter.granted
            if granted.done() and not granted.cancelled() and granted.exception() is None:
                await self._desk.report(Release(granted.result().permit))
            raise

    async def _wait_for_start(self, grant: _Grant) -> bool:
        """Sleep until the start; give the permit back if it does not hold any more."""
        try:
            ahead = grant.start - self._clock.monotonic()
            await self._clock.sleep(ahead)
            doubtful = ahead > self._pacing.confirm_after or self._refused_at >= grant.received_at
            if not doubtful or await self._holds(grant):
                return True
        except asyncio.CancelledError:
            await self._desk.report(Release(grant.permit))
            raise
        await self._desk.report(Release(grant.permit))
        return False

    async def _holds(self, grant: _Grant) -> bool:
        if self._clock.monotonic() - self._pulse_at > PULSE_LASTS:
            if self._confirming is None or self._confirming.done():
                self._confirming = asyncio.create_task(self._confirm())
            try:
                await asyncio.shield(self._confirming)
            except DeskUnavailable:
                return False
        return self._pulse.generation == grant.generation and self._pulse.paused_for <= PAUSE_ROUNDING

    async def _confirm(self) -> Pulse:
        asked_at = self._clock.monotonic()
        self._note_pulse(await self._desk.confirm(), asked_at)
        return self._pulse

    def _note_pulse(self, pulse: Pulse, asked_at: float) -> None:
        self._pulse, self._pulse_at = pulse, asked_at

    async def _serve(self) -> None:
        """Ask for the waiting calls until none is left, then give up the place in line."""
        failures = 0
        try:
            while self._still_waiting() or self._in_line:
                try:
                    pause = await self._ask()
                    failures = 0
                except DeskUnavailable as error:
                    self._in_line = False
                    failures += 1
                    pause = self._backoff(failures, error)
                await self._rest(pause)
        except Exception as error:
            for waiter in self._waiting:
                self._turn_away(waiter, error)
            raise
        finally:
            self._serving = None

    def _still_waiting(self) -> list[_Waiter]:
        self._waiting = [waiter for waiter in self._waiting if not waiter.granted.done()]
        return self._waiting

    async def _ask(self) -> float:
        """One question to the desk; return the seconds until the next one makes sense."""
        asked_at = self._clock.monotonic()
        chosen = self._waiting[:MOST_ASKS]
        asks = [Ask(self._new_id(), each.amounts, max(0.0, each.deadline - asked_at)) for each in chosen]
        answer = await self._desk.acquire(asks)
        self._note_pulse(answer.pulse, asked_at)
        self._in_line = answer.denial is not None
        await self._hand_out(chosen, asks, answer)
        if answer.denial is None:
            return 0.0
        return self._heed(chosen[len(answer.waits)], answer.denial, answer.pulse)

    async def _hand_out(self, chosen: Sequence[_Waiter], asks: Sequence[Ask], answer: Answer) -> None:
        now = self._clock.monotonic()
        unwanted = []
        for waiter, ask, wait in zip(chosen, asks, answer.waits, strict=False):
            if waiter.granted.done():
                unwanted.append(ask.id)
            else:
                waiter.granted.set_result(_Grant(ask.id, now, now + wait, answer.pulse.generation))
        for permit in unwanted:
            await self._desk.report(Release(permit))

    def _heed(self, first: _Waiter, denial: Denial, pulse: Pulse) -> float:
        """Turn away whom waiting cannot help; return how long the others wait before they ask again."""
        now = self._clock.monotonic()
        dimension = denial.dimension
        if denial.too_large and dimension is not None:
            self._turn_away(first, too_large(dimension, first.amounts[dimension], denial.too_large))
            return 0.0
        waiting = self._still_waiting()
        for place, waiter in enumerate(waiting):
            known = denial.starts_in if waiter is first else pulse.paused_for
            if waiter.deadline < now + max(known, 0.0) or waiter.deadline <= now:
                expected = max(denial.starts_in, place * denial.interval, pulse.paused_for)
                self._turn_away(waiter, self._too_late(expected, dimension))
        return 0.0 if first.granted.done() else denial.ticket

    async def _rest(self, seconds: float) -> None:
        """Sleep, but not beyond the first deadline, and not when nudged."""
        waiting = self._still_waiting()
        if seconds <= 0 or not waiting:
            return
        now = self._clock.monotonic()
        self._next_ask_at = now + seconds
        first = min(waiter.deadline for waiter in waiting)
        self._resting = asyncio.create_task(self._clock.sleep(max(0.001, min(seconds, first - now))))
        try:
            await asyncio.wait([self._resting])
        finally:
            self._resting.cancel()
            self._resting = None

    def _backoff(self, failures: int, error: DeskUnavailable) -> float:
        now = self._clock.monotonic()
        for waiter in self._still_waiting():
            if waiter.deadline <= now:
                why = f"the limits of {self._pool.group} cannot be read: {error}"
                self._turn_away(waiter, LimitReached(why, retry_after=LONGEST_BACKOFF))
        longest = min(LONGEST_BACKOFF, 0.05 * 2.0 ** min(failures, 10))
        return random.uniform(0.5, 1.0) * longest  # noqa: S311 - spreads retries, guards nothing

    def _too_late(self, expected: float, dimension: Dimension | None) -> LimitReached:
        reason = f" for {dimension.value.replace('_', ' ')}" if dimension else ""
        return LimitReached(
            f"the limit{reason} of {self._pool.group} leaves no room for {expected:.1f} s",
            dimension=dimension,
            retry_after=expected,
        )

    @staticmethod
    def _turn_away(waiter: _Waiter, error: Exception) -> None:
        if not waiter.granted.done():
            waiter.granted.set_exception(error)
