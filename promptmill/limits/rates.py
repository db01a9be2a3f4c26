"""How fast a pool may go at a moment: limits in force, the gentle start, the easing after overload.

A limit that rises is approached as a start is; one that falls holds at once.
"""

from collections.abc import Sequence

from promptmill.dimensions import DIMENSIONS, Headroom
from promptmill.limits.policy import MINUTE, Pacing
from promptmill.limits.records import (
    LEARN,
    UNLIMITED,
    PoolRecord,
    default_in_force,
    open_dimension,
    rate_in_force,
)

_SAME = 1e-9
"""Relative difference below which two limits are the same."""


def ramp(record: PoolRecord, at: float, pacing: Pacing) -> float:
    """The share of the limits that the gentle start allows at a moment."""
    doublings = max(0.0, at - record.ramp_at) / pacing.ramp_doubling
    return min(1.0, record.ramp_from * float(2.0**doublings))


def recover(record: PoolRecord, now: float, pacing: Pacing) -> None:
    """Let the easing of past overloads wear off."""
    gained = pacing.easing_recovery * max(0.0, now - record.eased_at)
    record.easing = min(1.0, record.easing + gained)
    record.eased_at = now


def restart_when_cold(record: PoolRecord, now: float, pacing: Pacing) -> None:
    """After a long idle time the traffic starts gently again, without saved-up pace."""
    if min(now - record.moment, now - record.ramp_at) > pacing.idle_restart:
        record.ramp_at, record.ramp_from = now, pacing.ramp_start
        hold_pace_until(record, now, pacing)


def hold_pace_until(record: PoolRecord, moment: float, pacing: Pacing) -> None:
    """Take away the pace saved up before a moment."""
    record.pacer = [
        max(used, moment + tolerance) for used, tolerance in zip(record.pacer, pacing.tolerance, strict=True)
    ]


def server_rate(record: PoolRecord, index: int) -> float:
    """What the server refills per second, as far as is known."""
    return record.learned[index] if record.learned[index] > 0 else record.rate[index]


def refill(record: PoolRecord, index: int, pacing: Pacing) -> float:
    """What the server refills per second and nobody else takes."""
    floor = pacing.refill_floor * record.rate[index]
    return max(floor, server_rate(record, index) - record.foreign[index])


def adopt_ceilings(record: PoolRecord, ceiling: Sequence[float], now: float, pacing: Pacing) -> None:
    """Take over a changed configuration."""
    if list(ceiling) == record.ceiling:
        return
    guessed = [default_in_force(record, index) for index in range(3)]
    for index, wanted in enumerate(ceiling):
        if wanted != record.ceiling[index]:
            record.overdrive[index] = pacing.overdrive[index] if wanted == LEARN else 0.0
    record.ceiling = list(ceiling)
    _update_rates(record, guessed, now, pacing)


def learn_limits(record: PoolRecord, headroom: Headroom, now: float, pacing: Pacing) -> None:
    """Take over the limits that a header states."""
    guessed = [default_in_force(record, index) for index in range(3)]
    for index, dimension in enumerate(DIMENSIONS):
        limit = headroom.limit(dimension)
        if limit is not None and limit > 0:
            record.learned[index] = limit / MINUTE
    _update_rates(record, guessed, now, pacing)


def _update_rates(record: PoolRecord, guessed: Sequence[bool], now: float, pacing: Pacing) -> None:
    """Put the limits in force after a ceiling or a learned limit changed."""
    growth = 1.0
    for index in range(3):
        before = record.rate[index]
        known = guessed[index] and not default_in_force(record, index)
        _update_rate(record, index, now, pacing, begin=known or before == UNLIMITED)
        if before > 0:
            growth = max(growth, record.rate[index] / before)
    if growth > 1.0 + _SAME:
        reached = ramp(record, now, pacing)
        record.ramp_from = min(reached, max(pacing.ramp_start, reached / growth))
        record.ramp_at = now


def _update_rate(record: PoolRecord, index: int, now: float, pacing: Pacing, *, begin: bool) -> None:
    """Put one limit in force. What was a guess, or no limit at all, tells nothing: the dimension begins anew."""
    before, after = record.rate[index], rate_in_force(record, index)
    if after == UNLIMITED:
        record.rate[index] = UNLIMITED
        return
    if begin:
        open_dimension(record, index, now, pacing)
    elif abs(after - before) > _SAME * before:
        record.rate[index] = after
        record.capacity[index] = _at_least_one(index, record.capacity[index] * after / before)
        # The pacer counts seconds: what it still owes is worth as many tokens as before.
        owed = max(0.0, record.pacer[index] - pacing.tolerance[index] - now)
        record.pacer[index] += owed * (before / after - 1)
    if record.learned[index] > 0:
        most = _at_least_one(index, MINUTE * record.learned[index])
        record.capacity[index] = min(record.capacity[index], most)
    record.level[index] = min(record.level[index], record.capacity[index])


def _at_least_one(index: int, capacity: float) -> float:
    return max(1.0, capacity) if index == 0 else capacity
