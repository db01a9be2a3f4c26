"""How fast a pool may go at a moment: limits in force, the gentle start, the easing after overload.

A limit that rises is approached as a start is; one that falls holds at once.
"""

from collections.abc import Sequence

from promptmill.limits.policy import MINUTE, Pacing
from promptmill.limits.records import LEARN, UNLIMITED, PoolRecord, open_dimension, rate_in_force


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
    for index, wanted in enumerate(ceiling):
        if wanted != record.ceiling[index]:
            record.overdrive[index] = pacing.overdrive[index] if wanted == LEARN else 0.0
    record.ceiling = list(ceiling)
    update_rates(record, now, pacing)


def update_rates(record: PoolRecord, now: float, pacing: Pacing) -> None:
    """Put the limits in force after a ceiling or a learned limit changed."""
    growth = 1.0
    for index in range(3):
        growth = max(growth, _update_rate(record, index, now, pacing))
    if growth > 1.0:
        reached = ramp(record, now, pacing)
        record.ramp_from = min(reached, max(pacing.ramp_start, reached / growth))
        record.ramp_at = now


def _update_rate(record: PoolRecord, index: int, now: float, pacing: Pacing) -> float:
    """Put one limit in force; return by what factor it rose."""
    before, after = record.rate[index], rate_in_force(record, index)
    factor = 1.0
    if after == UNLIMITED:
        record.rate[index] = UNLIMITED
    elif before == UNLIMITED:
        open_dimension(record, index, now, pacing)
    elif abs(after - before) > 1e-9 * before:
        factor = after / before
        record.rate[index] = after
        record.capacity[index] = _at_least_one(index, record.capacity[index] * factor)
    if after != UNLIMITED and record.learned[index] > 0:
        most = _at_least_one(index, MINUTE * record.learned[index])
        record.capacity[index] = min(record.capacity[index], most)
    record.level[index] = min(record.level[index], record.capacity[index])
    return factor


def _at_least_one(index: int, capacity: float) -> float:
    return max(1.0, capacity) if index == 0 else capacity
