"""What a person or the dispatcher may know about a pool: figures derived from its record, at one moment."""

from dataclasses import dataclass
from enum import StrEnum

from promptmill.dimensions import DIMENSIONS, Amounts, Dimension
from promptmill.limits.hindrance import Hindrance, hindrance
from promptmill.limits.planning import bankable
from promptmill.limits.policy import MINUTE, Pacing, Pool
from promptmill.limits.rates import gentle_share, refill, share_after_overloads, used_lately
from promptmill.limits.records import UNLIMITED, PoolRecord


class LimitSource(StrEnum):
    """Where a limit in force comes from."""

    CONFIGURED = "configured"
    LEARNED = "learned"
    PROBED = "probed"
    DEFAULT = "default"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class DimensionState:
    """One dimension of a pool; amounts are requests or tokens, rates per minute.

    Attributes:
        limit: in force; None when there is none.
        level: what the server's bucket is thought to hold now.
        capacity: the most it is known to hold.
        burst: the `B` of the promise "granted - settled back <= B + limit * w", beside one call; it is kept
            for configured limits.
        foreign: what other programs take.
        pace: what may be granted now, after ramp, easing and foreign use.
        used_per_minute: what was granted less what was given back, in about the last 60 s.
    """

    dimension: Dimension
    limit: float | None
    source: LimitSource
    level: float
    capacity: float
    burst: float
    foreign: float
    pace: float
    used_per_minute: float


@dataclass(frozen=True, slots=True)
class PoolState:
    """A pool at one moment.

    Attributes:
        in_flight: permits that are neither settled nor released, of all processes.
        paused_for: s until the pause after a 429, or in an outage, is over; 0 when there is none.
        waiting: calls that wait in this process.
        processes_waiting: processes in line, this one included.
        share: of the limits, allowed now by the gentle start and the easing after overloads.
        mean: what a permit reserves on average; all zero before the first.
        ramp: the share that the gentle start allows.
        easing: the share that is left after overloads (529), 1 when all is well.
        held_by: why the next call waits or is slowed; None when it could start at once.
    """

    pool: Pool
    dimensions: tuple[DimensionState, ...]
    in_flight: int
    paused_for: float
    waiting: int
    processes_waiting: int
    share: float
    mean: Amounts
    ramp: float
    easing: float
    held_by: Hindrance | None

    def __getitem__(self, dimension: Dimension) -> DimensionState:
        return self.dimensions[DIMENSIONS.index(dimension)]

    def calls_per_second(self, each: Amounts | None = None) -> float | None:
        """Calls per second that the limits in force carry; None when nothing limits them.

        Args:
            each: what one call needs; the mean of the permits so far when not given.
        """
        rates = self._rates(each or self.mean)
        return min(rates.values()) if rates else None

    def binding(self, each: Amounts | None = None) -> Dimension | None:
        """The dimension that allows the fewest calls."""
        rates = self._rates(each or self.mean)
        return min(rates, key=lambda dimension: rates[dimension]) if rates else None

    def _rates(self, each: Amounts) -> dict[Dimension, float]:
        if not each.requests:
            each = Amounts(1.0, each.input_tokens, each.output_tokens)
        return {
            state.dimension: (state.limit - min(state.foreign, 0.95 * state.limit))
            / MINUTE
            / each[state.dimension]
            for state in self.dimensions
            if state.limit is not None and each[state.dimension] > 0
        }


def describe(record: PoolRecord, pool: Pool, now: float, waiting: int, pacing: Pacing) -> PoolState:
    """Derive the figures of a pool from its record."""
    limited = (index for index in range(3) if record.rate[index] != UNLIMITED)
    gentle = min((gentle_share(record, index, now, pacing) for index in limited), default=1.0)
    easing = share_after_overloads(record, now, pacing)
    return PoolState(
        pool=pool,
        dimensions=tuple(_dimension(record, index, now, pacing) for index in range(3)),
        in_flight=round(record.in_flight),
        paused_for=max(0.0, record.paused_until - now),
        waiting=waiting,
        processes_waiting=len(record.line),
        share=gentle * easing,
        mean=Amounts(*record.mean_cost),
        ramp=gentle,
        easing=easing,
        held_by=hindrance(record, now, pacing, waiting=bool(waiting or record.line)),
    )


def _dimension(record: PoolRecord, index: int, now: float, pacing: Pacing) -> DimensionState:
    rate, refilled = record.rate[index], refill(record, index, pacing)
    level = record.level[index] + refilled * (now - record.moment)
    share = gentle_share(record, index, now, pacing) * share_after_overloads(record, now, pacing)
    return DimensionState(
        dimension=DIMENSIONS[index],
        limit=None if rate == UNLIMITED else rate * MINUTE,
        source=_source(record, index),
        level=min(level, max(record.level[index], bankable(record, index, pacing))),
        capacity=record.capacity[index],
        burst=(pacing.tolerance[index] + pacing.horizon) * rate,
        foreign=record.foreign[index] * MINUTE,
        pace=min(rate, refilled) * share * MINUTE,
        used_per_minute=used_lately(record, index, now),
    )


def _source(record: PoolRecord, index: int) -> LimitSource:
    if record.rate[index] == UNLIMITED:
        return LimitSource.NONE
    if record.rate[index] == record.ceiling[index]:
        return LimitSource.CONFIGURED
    if record.learned[index] == 0:
        return LimitSource.DEFAULT
    return LimitSource.PROBED if record.probed[index] else LimitSource.LEARNED
