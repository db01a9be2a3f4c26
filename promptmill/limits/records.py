"""What is remembered about a pool and about each permit, and how both lie in Redis.

Both are one string of little-endian doubles, in the order in which the fields stand here: reading and
writing a hash of as many fields would cost a script 99 µs instead of 8. The Lua that reads and writes them
is made from this order in `scripts`. Lists hold requests, input tokens, output tokens; rates are per second;
moments are seconds on the clock of the pool.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from math import floor

from promptmill.dimensions import DIMENSIONS
from promptmill.limits.policy import DEFAULT_LIMITS, MINUTE, Ceilings, Pacing

LAYOUT = 4.0
"""Grows by one with every change of the order below. A record of an older layout is taken as absent and replaced; of a
newer one, nothing is granted: while workers are updated one by one, the new ones have the pool."""

LEARN = -1.0
UNLIMITED = 0.0
ABSENT = -1.0
NEVER = -1.0

INPUT, OUTPUT = 1, 2


def _three(value: float = 0.0) -> list[float]:
    return [value] * 3


@dataclass(slots=True)
class PoolRecord:
    """Everything the limiter knows about one pool.

    The mirror (`level`, `capacity`, at `moment`) is what the server's bucket is thought to hold; the pacer
    (`pacer`) bounds how fast it may be used.
    """

    layout: float = LAYOUT
    epoch: float = 0.0  # the moment this record began; permits of another epoch mean nothing to it
    moment: float = 0.0  # the start of the last permit; `level` is true at this moment
    generation: float = 0.0  # grows with the first 429 of each episode; that of another epoch is another
    paused_until: float = 0.0
    ceiling: list[float] = field(default_factory=_three)  # configured; LEARN or UNLIMITED otherwise
    learned: list[float] = field(default_factory=_three)  # from headers or a probe; 0 is not yet, or ABSENT
    probed: list[float] = field(default_factory=_three)  # 1 while what was learned is a probe's
    told_at: float = NEVER  # the start of the newest call whose headers taught limits
    unstated: list[float] = field(default_factory=_three)  # headers that stated other limits, in a row
    rate: list[float] = field(default_factory=_three)  # in force; 0 is no limit
    capacity: list[float] = field(default_factory=_three)  # the largest level a header has shown
    level: list[float] = field(default_factory=_three)
    pacer: list[float] = field(default_factory=_three)  # the moment up to which the pace is used
    corrected: list[float] = field(default_factory=_three)  # sum of all corrections made after a grant
    foreign: list[float] = field(default_factory=_three)  # what others take
    seen_at: list[float] = field(default_factory=_three)  # the last header; NEVER before
    full_seen: list[float] = field(default_factory=_three)  # headers below the mirror: capacity is known
    overdrive: list[float] = field(default_factory=_three)
    mean_cost: list[float] = field(default_factory=_three)  # of a permit
    minute_used: list[float] = field(default_factory=_three)  # granted less given back, in this minute
    minute_before: list[float] = field(default_factory=_three)  # and in the one before it
    minute_began: float = 0.0
    ramp_from: float = 0.0
    ramp_at: float = 0.0
    easing: float = 1.0  # after 529s
    eased_at: float = 0.0
    cut_at: float = 0.0
    refused_since: float = NEVER  # the first 529 since which no call that began later was answered
    outage_from: float = 0.0  # the moment from which such a 529 means that everything is refused
    in_flight: float = 0.0
    output_in_flight: float = 0.0
    input_variance: float = 0.0  # of what is in flight and unsettled
    interval: float = 0.5  # mean s between two permits
    request_jitter: float = 0.0
    input_answers: float = 0.0
    input_asked: float = 0.0
    input_used: float = 0.0
    input_error: float = 0.0  # mean square of the relative error of input estimates
    output_answers: float = 0.0
    output_asked: float = 0.0
    output_used: float = 0.0
    output_variance: float = 0.0
    output_mean: float = 0.0
    latency: float = 0.0  # mean s from start to settlement
    headerless: float = 0.0
    saving_for: float = 0.0  # input tokens a refused call will need
    saving_until: float = 0.0
    line: list[tuple[str, float]] = field(default_factory=list)  # processes in turn, and when each is due

    def doubles(self) -> list[float]:
        """Every number of the record, in order."""
        return _flattened(self, POOL_FIELDS)

    @classmethod
    def from_doubles(cls, doubles: Sequence[float], line: str) -> "PoolRecord":
        """The record as `lua/peek.lua` tells it: its numbers, and the line as "process due process due"."""
        record, numbers = cls(), iter(doubles)
        for name in POOL_FIELDS:
            many = isinstance(getattr(record, name), list)
            setattr(record, name, [next(numbers) for _ in range(3)] if many else next(numbers))
        words = line.split()
        record.line = [(process, float(due)) for process, due in zip(words[::2], words[1::2], strict=True)]
        return record


@dataclass(slots=True)
class Reservation:
    """What a permit holds until it is settled, and what the mirror said when it was granted."""

    epoch: float
    generation: float
    start: float
    amounts: list[float]
    pace: list[float]  # s of pace it was charged
    rate: list[float]  # the limits then in force
    level_before: list[float]
    level_after: list[float]
    corrected: list[float]
    in_flight: float
    output_in_flight: float
    input_variance: float
    input_settled: float = 0.0

    def doubles(self) -> list[float]:
        """Every number of the reservation, in order."""
        return _flattened(self, RESERVATION_FIELDS)


def _flattened(record: "PoolRecord | Reservation", names: Sequence[str]) -> list[float]:
    doubles: list[float] = []
    for name in names:
        value = getattr(record, name)
        doubles.extend(value) if isinstance(value, list) else doubles.append(value)
    return doubles


POOL_FIELDS = tuple(item.name for item in fields(PoolRecord) if item.name != "line")
RESERVATION_FIELDS = tuple(item.name for item in fields(Reservation))
EMPTY_RESERVATION = Reservation(
    0.0,
    0.0,
    0.0,
    _three(),
    _three(),
    _three(),
    _three(),
    _three(),
    _three(),
    in_flight=0.0,
    output_in_flight=0.0,
    input_variance=0.0,
)


def fresh_record(now: float, ceilings: Ceilings, pacing: Pacing) -> PoolRecord:
    """A pool of which nothing is known: half a second of capacity, a gentle start, no burst.

    Where not even a limit is known, the default limits are gentle enough without a ramp.
    """
    record = PoolRecord(epoch=now, moment=now, ramp_at=now, generation=1.0 + floor(1000 * now))
    record.ceiling = ceilings_per_second(ceilings)
    record.ramp_from = pacing.ramp_start if max(record.ceiling) > 0 else 1.0
    record.eased_at = record.minute_began = now
    record.cut_at = now - pacing.easing_interval
    record.request_jitter = pacing.request_jitter
    record.overdrive = [
        wanted if ceiling == LEARN else 0.0
        for wanted, ceiling in zip(pacing.overdrive, record.ceiling, strict=True)
    ]
    for index in range(3):
        open_dimension(record, index, now, pacing)
    return record


def open_dimension(record: PoolRecord, index: int, now: float, pacing: Pacing) -> None:
    """Begin to limit one dimension, at the rate that is in force for it."""
    rate = rate_in_force(record, index)
    seconds = pacing.default_capacity if default_in_force(record, index) else pacing.first_capacity
    record.rate[index] = rate
    record.capacity[index] = max(1.0 if index == 0 else 0.0, seconds * rate)
    record.corrected[index] += record.capacity[index] - record.level[index]
    record.level[index] = record.capacity[index]
    record.pacer[index] = now + pacing.tolerance[index] - _head_start(record, index, pacing)
    record.seen_at[index] = NEVER
    record.full_seen[index] = 0.0
    record.foreign[index] = 0.0


def default_in_force(record: PoolRecord, index: int) -> bool:
    """Whether nothing is known of a limit."""
    return record.ceiling[index] == LEARN and record.learned[index] == 0


def _head_start(record: PoolRecord, index: int, pacing: Pacing) -> float:
    """Seconds of pace for a handful of average calls, where the server itself has just said what there is."""
    if record.ceiling[index] != LEARN or record.learned[index] <= 0:
        return 0.0
    handful = pacing.first_calls * record.mean_cost[index]
    return min(pacing.tolerance[index], handful / (pacing.ramp_start * record.learned[index]))


def rate_in_force(record: PoolRecord, index: int) -> float:
    """Per second: the ceiling or what was learned, whichever is lower; the default while neither is known."""
    ceiling, learned = record.ceiling[index], record.learned[index]
    if ceiling == UNLIMITED:
        return UNLIMITED
    if ceiling > 0:
        return min(ceiling, learned) if learned > 0 else ceiling
    if learned == ABSENT:
        return UNLIMITED
    return learned if learned > 0 else default_rate(index)


def default_rate(index: int) -> float:
    """Per second, while nothing is known of a limit."""
    return DEFAULT_LIMITS[DIMENSIONS[index]] / MINUTE


def ceilings_per_second(ceilings: Ceilings) -> list[float]:
    """Ceilings as a record holds them."""
    return [LEARN if ceiling is None else ceiling / MINUTE for ceiling in ceilings]
