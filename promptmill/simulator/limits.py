"""The rate limits of one organization and model group, enforced as the real API does.

Continuously refilled token buckets for requests, input and output tokens (claude-api.md, 5.1). The one idea:
a call is admitted when every level is at least min(cost, capacity), which may take a level below zero; a
refused call debits nothing. Output is debited while it is produced: an admitted answer's start, speed and end
are known beforehand, so its production is a change of slope at two moments, integrated exactly.

Time is always passed in, in monotonic seconds. Rates are per second inside, limits per minute outside.
"""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

from promptmill.dimensions import DIMENSIONS, Amounts, Dimension

_TINY = 1e-6
_ONE_REQUEST = 1.0
_INSTANT_S = 1e-3
_ACCELERATION_WINDOW_S = 10.0
_ACCELERATION_FLOOR = 0.4
_ACCELERATION_FACTOR = 2.0
_LARGEST_SHARE = 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceilings:
    """The limits of a pool.

    Attributes:
        per_minute: the limit in each dimension; 0 = none.
        burst_s: what each bucket holds, in seconds of its limit.
        hidden_request_burst_s: the same for a second, invisible request bucket; None = there is none.
        acceleration: enforce the rule against a sharp rise.
    """

    per_minute: Amounts
    burst_s: Amounts
    hidden_request_burst_s: float | None = None
    acceleration: bool = False


@dataclass(frozen=True, slots=True)
class Tenant:
    """Somebody else of the same organization who takes `share` of every limit in a span of time."""

    share: float
    begins: float
    ends: float = math.inf


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a call is not admitted; `dimension` is None for the acceleration rule."""

    dimension: Dimension | None
    wait_s: float

    @property
    def retry_after(self) -> int:
        """Whole seconds, as the header has them."""
        return max(1, math.ceil(self.wait_s - _TINY))


class Bucket:
    """A level that refills at `rate` up to `capacity`, and sinks by `drain` while answers are produced."""

    __slots__ = ("at", "capacity", "drain", "level", "rate", "share")

    def __init__(self, per_minute: float, burst_s: float, now: float, *, least: float = 0.0) -> None:
        self.rate = per_minute / 60
        self.capacity = max(least, self.rate * burst_s)
        self.level = self.capacity
        self.at = now
        self.share = 0.0
        self.drain = 0.0

    @property
    def refill(self) -> float:
        """Units per second, after what other tenants take."""
        return self.rate * (1.0 - min(self.share, _LARGEST_SHARE))

    def advance(self, now: float) -> None:
        """Let the time up to `now` pass."""
        if now > self.at:
            gained = (self.refill - self.drain) * (now - self.at)
            self.level = min(self.capacity, self.level + gained)
            self.at = now

    def wait_for(self, cost: float) -> float:
        """Seconds until `cost` is admitted; 0 when it is now."""
        missing = min(cost, self.capacity) - self.level
        return 0.0 if missing <= _TINY else missing / self.refill

    def seconds_to_full(self) -> float:
        """Seconds until the level is at its capacity, if nothing is taken."""
        return max(0.0, self.capacity - self.level) / self.refill


class Acceleration:
    """Refuses a sharp rise: per window and dimension at most twice the window before, from 40 % of the limit.

    The real rule is not published; this one is assumed (limiter.md, section 1). What counts is the admitted
    cost as a share of the limit. The first call of a window always passes, however large.
    """

    __slots__ = ("_allowed", "_begins", "_used")

    def __init__(self, now: float) -> None:
        self._begins = now
        self._used = [0.0] * len(DIMENSIONS)
        self._allowed = [_ACCELERATION_FLOOR] * len(DIMENSIONS)

    def wait_for(self, seconds: Sequence[float], now: float) -> float:
        """Seconds until a call may pass that costs `seconds` of each limit; 0 when it may now."""
        self._turn(now)
        if not any(self._used):
            return 0.0
        for used, cost, allowed in zip(self._used, seconds, self._allowed, strict=True):
            if used + cost > allowed * _ACCELERATION_WINDOW_S + _TINY:
                return self._begins + _ACCELERATION_WINDOW_S - now
        return 0.0

    def admit(self, seconds: Sequence[float]) -> None:
        """Count an admitted call."""
        self._used = [used + cost for used, cost in zip(self._used, seconds, strict=True)]

    def _turn(self, now: float) -> None:
        passed = int((now - self._begins) // _ACCELERATION_WINDOW_S)
        if passed <= 0:
            return
        last = self._used if passed == 1 else [0.0] * len(DIMENSIONS)
        self._allowed = [
            max(_ACCELERATION_FLOOR, _ACCELERATION_FACTOR * used / _ACCELERATION_WINDOW_S) for used in last
        ]
        self._used = [0.0] * len(DIMENSIONS)
        self._begins += passed * _ACCELERATION_WINDOW_S


class Pool:
    """The buckets of one organization and model group."""

    def __init__(self, ceilings: Ceilings, now: float, tenants: Sequence[Tenant] = ()) -> None:
        self.ceilings = ceilings
        self.admitted = [0, 0, 0]
        # What is to happen by itself: (moment, slope of production, output debited at once, share of others).
        self._changes: list[tuple[float, float, float, float]] = []
        self._running = 0
        self._production = 0.0
        self._taken_share = 0.0
        self._build(ceilings, now)
        for tenant in tenants:
            heapq.heappush(self._changes, (tenant.begins, 0.0, 0.0, tenant.share))
            heapq.heappush(self._changes, (tenant.ends, 0.0, 0.0, -tenant.share))

    def admit(self, now: float, input_tokens: int, output_tokens: int = 0) -> Refusal | None:
        """Debit a call and return None, or say why not and debit nothing.

        Args:
            now: monotonic seconds.
            input_tokens: what counts: everything but cache reads.
            output_tokens: what will be produced; only the acceleration rule looks at it.
        """
        self.advance(now)
        refusal = self._refusal(now, input_tokens, output_tokens)
        if refusal is not None:
            return refusal
        if self.hidden is not None:
            self.hidden.level -= _ONE_REQUEST
        if self.requests is not None:
            self.requests.level -= _ONE_REQUEST
        if self.input is not None:
            self.input.level -= input_tokens
        if self._acceleration is not None:
            self._acceleration.admit(self._seconds(input_tokens, output_tokens))
        self.admitted[0] += 1
        self.admitted[1] += input_tokens
        return None

    def produce(self, begins: float, seconds: float, tokens: int) -> None:
        """Debit `tokens` of output evenly over `seconds` from the moment `begins` on."""
        self.admitted[2] += tokens
        if self.output is None or not tokens:
            return
        if seconds < _INSTANT_S:
            heapq.heappush(self._changes, (begins, 0.0, float(tokens), 0.0))
            return
        speed = tokens / seconds
        heapq.heappush(self._changes, (begins, speed, 0.0, 0.0))
        heapq.heappush(self._changes, (begins + seconds, -speed, 0.0, 0.0))

    def advance(self, now: float) -> None:
        """Let the time up to `now` pass, with every change of slope at its own moment."""
        changes = self._changes
        while changes and changes[0][0] <= now:
            self._apply(heapq.heappop(changes))
        for bucket in self._buckets:
            bucket.advance(now)

    def change(self, ceilings: Ceilings, now: float) -> None:
        """Put other limits in force; a level stays, as far as the new capacity holds it."""
        self.advance(now)
        before = (self.hidden, self.requests, self.input, self.output)
        self.ceilings = ceilings
        self._build(ceilings, now)
        for old, new in zip(before, (self.hidden, self.requests, self.input, self.output), strict=True):
            if old is not None and new is not None:
                new.level = min(old.level, new.capacity)

    def levels(self, now: float) -> tuple[float | None, float | None, float | None]:
        """The level in each dimension; None where there is no limit."""
        self.advance(now)
        return (_level(self.requests), _level(self.input), _level(self.output))

    def _build(self, ceilings: Ceilings, now: float) -> None:
        limit, burst = ceilings.per_minute, ceilings.burst_s
        hidden = ceilings.hidden_request_burst_s
        self.hidden = _bucket(limit.requests, hidden, now, least=1.0)
        self.requests = _bucket(limit.requests, burst.requests, now, least=1.0)
        self.input = _bucket(limit.input_tokens, burst.input_tokens, now)
        self.output = _bucket(limit.output_tokens, burst.output_tokens, now)
        every = (self.hidden, self.requests, self.input, self.output)
        self._buckets = [bucket for bucket in every if bucket is not None]
        self._acceleration = Acceleration(now) if ceilings.acceleration else None
        self._tilt()

    def _refusal(self, now: float, input_tokens: int, output_tokens: int) -> Refusal | None:
        for bucket in (self.hidden, self.requests):
            if bucket is not None and (wait := bucket.wait_for(_ONE_REQUEST)):
                return Refusal(Dimension.REQUESTS, wait)
        if self.input is not None and (wait := self.input.wait_for(input_tokens)):
            return Refusal(Dimension.INPUT_TOKENS, wait)
        if self.output is not None and self.output.level <= 0:
            return Refusal(Dimension.OUTPUT_TOKENS, (1 - self.output.level) / self.output.refill)
        if self._acceleration is not None:
            wait = self._acceleration.wait_for(self._seconds(input_tokens, output_tokens), now)
            if wait:
                return Refusal(None, wait)
        return None

    def _seconds(self, input_tokens: int, output_tokens: int) -> list[float]:
        cost = (_ONE_REQUEST, input_tokens, output_tokens)
        return [
            each * 60 / limit if limit else 0.0
            for each, limit in zip(cost, self.ceilings.per_minute, strict=True)
        ]

    def _apply(self, change: tuple[float, float, float, float]) -> None:
        moment, slope, debit, share = change
        for bucket in self._buckets:
            bucket.advance(moment)
        if slope:
            self._running += 1 if slope > 0 else -1
            # No float dust remains once nothing is produced.
            self._production = self._production + slope if self._running else 0.0
        self._taken_share += share
        if self.output is not None:
            self.output.level -= debit
        self._tilt()

    def _tilt(self) -> None:
        for bucket in self._buckets:
            bucket.share = self._taken_share
        if self.output is not None:
            self.output.drain = self._production


def _bucket(per_minute: float, burst_s: float | None, now: float, *, least: float = 0.0) -> Bucket | None:
    if not per_minute or burst_s is None:
        return None
    return Bucket(per_minute, burst_s, now, least=least)


def _level(bucket: Bucket | None) -> float | None:
    return None if bucket is None else bucket.level
