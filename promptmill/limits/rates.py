"""How fast a pool may go at a moment: limits in force, the gentle start, the easing after overload.

A limit that rises is approached as a start is; one that falls holds at once.
"""

from collections.abc import Sequence

from promptmill.dimensions import DIMENSIONS, Headroom
from promptmill.limits.policy import MINUTE, Ceilings, Pacing
from promptmill.limits.records import (
    ABSENT,
    LEARN,
    NEVER,
    UNLIMITED,
    PoolRecord,
    default_in_force,
    default_rate,
    open_dimension,
    rate_in_force,
)

_SAME = 1e-9
"""Relative difference below which two limits are the same."""


def ramp(record: PoolRecord, at: float, pacing: Pacing) -> float:
    """The share of the limits that the gentle start allows at a moment."""
    doublings = max(0.0, at - record.ramp_at) / pacing.ramp_doubling
    return min(1.0, record.ramp_from * float(2.0**doublings))


def gentle_share(record: PoolRecord, index: int, at: float, pacing: Pacing) -> float:
    """The same for one limit: no start needs to be slower than the default limits; the return from a 429 may be."""
    share, rate = ramp(record, at, pacing), record.rate[index]
    if rate > 0 and record.paused_until < record.ramp_at:
        share = max(share, min(1.0, default_rate(index) / rate))
    return share


def in_outage(record: PoolRecord, now: float, pacing: Pacing) -> bool:
    """Whether nothing succeeds: 529s for long, and no answer. After a long time without either, nobody knows."""
    lasting = record.refused_since != NEVER and record.cut_at >= record.outage_from
    return lasting and now - record.cut_at <= pacing.idle_restart


def eased(record: PoolRecord, now: float, pacing: Pacing) -> float:
    """The share that past overloads leave at a moment; it does not grow while nothing succeeds."""
    if in_outage(record, now, pacing):
        return record.easing
    return min(1.0, record.easing + pacing.easing_recovery * max(0.0, now - record.eased_at))


def recover(record: PoolRecord, now: float, pacing: Pacing) -> None:
    """Let the easing of past overloads wear off."""
    record.easing = eased(record, now, pacing)
    record.eased_at = now


def share_after_overloads(record: PoolRecord, now: float, pacing: Pacing) -> float:
    """What overloads leave of the limits: while nothing succeeds, one average call in each interval."""
    share = eased(record, now, pacing)
    if not in_outage(record, now, pacing):
        return share
    limited = [index for index in range(3) if record.rate[index] > 0]
    between = max((record.mean_cost[index] / record.rate[index] for index in limited), default=0.0)
    return min(share, between / pacing.probe_interval)


def begin_gently(record: PoolRecord, now: float, pacing: Pacing) -> None:
    """Approach the limits as at a start, without saved-up pace."""
    record.ramp_at, record.ramp_from = now, pacing.ramp_start
    hold_pace_until(record, now, pacing)


def restart_when_cold(record: PoolRecord, now: float, pacing: Pacing) -> None:
    """After a long idle time the traffic starts gently again, without saved-up pace."""
    if min(now - record.moment, now - record.ramp_at) > pacing.idle_restart:
        begin_gently(record, now, pacing)


def hold_pace_until(record: PoolRecord, moment: float, pacing: Pacing) -> None:
    """Take away the pace saved up before a moment."""
    record.pacer = [
        max(used, moment + tolerance) for used, tolerance in zip(record.pacer, pacing.tolerance, strict=True)
    ]


def server_rate(record: PoolRecord, index: int) -> float:
    """What the server refills per second, as far as is known."""
    return record.learned[index] if record.learned[index] > 0 else record.rate[index]


def is_shared(record: PoolRecord, index: int, pacing: Pacing) -> bool:
    """Whether somebody else is known to draw on the same limit."""
    return record.foreign[index] > 0 and record.foreign[index] >= pacing.foreign_noticed * server_rate(
        record, index
    )


def refill(record: PoolRecord, index: int, pacing: Pacing) -> float:
    """What the server refills per second and nobody else takes."""
    floor = pacing.refill_floor * record.rate[index]
    return max(floor, server_rate(record, index) - record.foreign[index])


def roll_minute(record: PoolRecord, now: float) -> None:
    """Begin a new minute of counting what is used, when the last one is over."""
    passed = (now - record.minute_began) // MINUTE
    if passed >= 1:
        record.minute_before = record.minute_used if passed == 1 else [0.0] * 3
        record.minute_used = [0.0] * 3
        record.minute_began += MINUTE * passed


def used_lately(record: PoolRecord, index: int, now: float) -> float:
    """What was granted less what was given back in the last 60 s; the minute before counts evenly spread."""
    passed = max(0.0, now - record.minute_began) / MINUTE
    if passed < 1:
        return max(0.0, record.minute_used[index] + (1 - passed) * record.minute_before[index])
    return max(0.0, (2 - min(2.0, passed)) * record.minute_used[index])


def adopt_ceilings(record: PoolRecord, ceiling: Sequence[float], now: float, pacing: Pacing) -> None:
    """Take over a changed configuration.

    While workers are restarted one by one with another file, they disagree, and whoever asks changes it back. So
    each grant is charged at the ceiling of the process that asked, in seconds of the one pacer, and seconds that are
    used stay used at any ceiling: what a process is granted stays within its own ceiling whatever the others state,
    for all of them draw on the same seconds. Seconds that one gives back late, the next may have on top of it. The
    mirror of a dimension that had no limit begins anew each time.
    """
    if list(ceiling) == record.ceiling:
        return
    guessed = [default_in_force(record, index) for index in range(3)]
    for index, wanted in enumerate(ceiling):
        if wanted != record.ceiling[index]:
            record.overdrive[index] = pacing.overdrive[index] if wanted == LEARN else 0.0
    record.ceiling = list(ceiling)
    _update_rates(record, guessed, now, pacing, adopted=True)


def learn_limits(
    record: PoolRecord, headroom: Headroom, start: float | None, now: float, pacing: Pacing
) -> None:
    """Take over the limits that a header states. What headers leave out for long, while they state others, is none.

    A header shows the limits of the moment when its call was admitted, and comes when the answer ends: after a
    change, the old limit goes on arriving for as long as an answer takes. So only a call that began (`start`;
    None where this record does not know it) after the one that taught the limits has news.
    """
    if record.told_at != NEVER and (start is None or start < record.told_at):
        return
    if start is not None and any(headroom.limit(dimension) for dimension in DIMENSIONS):
        record.told_at = start
    guessed = [default_in_force(record, index) for index in range(3)]
    limits = [headroom.limit(dimension) or 0.0 for dimension in DIMENSIONS]
    for index, limit in enumerate(limits):
        if limit > 0:
            record.unstated[index] = 0.0
            _note_limit(record, index, limit / MINUTE, probed=0.0)
        elif max(limits) > 0:
            record.unstated[index] += 1
            if record.learned[index] == 0 and record.unstated[index] >= pacing.headerless_answers:
                record.learned[index] = ABSENT
    _update_rates(record, guessed, now, pacing)


def learn_probed(record: PoolRecord, limits: Ceilings, now: float, pacing: Pacing) -> None:
    """Take over limits as the Rate Limits API states them; that there is none, unless a header said otherwise."""
    record.told_at = now
    guessed = [default_in_force(record, index) for index in range(3)]
    for index, limit in enumerate(limits):
        if limit is not None and limit > 0:
            _note_limit(record, index, limit / MINUTE, probed=1.0)
        elif limit is not None and (record.learned[index] <= 0 or record.probed[index]):
            _note_limit(record, index, ABSENT, probed=1.0)
    _update_rates(record, guessed, now, pacing)


def _note_limit(record: PoolRecord, index: int, limit: float, *, probed: float) -> None:
    """Another limit may come with another bucket: the next header is taken as the first one of it."""
    if limit != record.learned[index]:
        record.learned[index], record.probed[index] = limit, probed
        record.seen_at[index] = NEVER


def _update_rates(
    record: PoolRecord, guessed: Sequence[bool], now: float, pacing: Pacing, *, adopted: bool = False
) -> None:
    """Put the limits in force after a ceiling or a learned limit changed.

    The pace goes on as it was: a higher limit is approached from there, a lower one may be in full use at once.
    """
    growth = 0.0
    for index in range(3):
        before = record.rate[index]
        known = guessed[index] and not default_in_force(record, index)
        _update_rate(record, index, now, pacing, begin=known or before == UNLIMITED, adopted=adopted)
        if before > 0:
            after = record.rate[index]
            growth = max(growth, float("inf") if after == UNLIMITED else after / before)
    if growth == 0 or abs(growth - 1.0) <= _SAME:
        return
    reached = ramp(record, now, pacing)
    if growth > 1:
        record.ramp_from = min(reached, max(pacing.ramp_start, reached / growth))
    else:
        record.ramp_from = min(1.0, reached / growth)
    record.ramp_at = max(now, record.paused_until)


def _update_rate(
    record: PoolRecord, index: int, now: float, pacing: Pacing, *, begin: bool, adopted: bool
) -> None:
    """Put one limit in force. What was a guess, or no limit at all, tells nothing: the dimension begins anew."""
    before, after, used = record.rate[index], rate_in_force(record, index), record.pacer[index]
    if after == UNLIMITED:
        record.rate[index] = UNLIMITED
        return
    if begin:
        open_dimension(record, index, now, pacing)
        if adopted:
            record.pacer[index] = max(record.pacer[index], used)
    elif abs(after - before) > _SAME * before:
        record.rate[index] = after
        record.capacity[index] = _at_least_one(index, record.capacity[index] * after / before)
        # The pacer counts seconds: what it still owes is worth as many tokens as before.
        owed = 0.0 if adopted else max(0.0, used - pacing.tolerance[index] - now)
        record.pacer[index] += owed * (before / after - 1)
    if record.learned[index] > 0:
        most = _at_least_one(index, MINUTE * record.learned[index])
        record.capacity[index] = min(record.capacity[index], most)
    record.level[index] = min(record.level[index], record.capacity[index])


def _at_least_one(index: int, capacity: float) -> float:
    return max(1.0, capacity) if index == 0 else capacity
