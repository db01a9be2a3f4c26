"""What settlements, headers and refusals teach the record.

A header describes the moment just after a call was admitted, and arrives seconds later. So it is compared
with what the mirror said at that very grant, plus every correction made since: nothing is corrected twice,
and no two clocks are compared. `lua/settle.lua` and `lua/penalise.lua` are this module in Lua.
"""

from dataclasses import dataclass
from math import exp, sqrt

from promptmill.dimensions import DIMENSIONS
from promptmill.limits.desk import Penalty, Settlement
from promptmill.limits.planning import output_variance, unproduced_share
from promptmill.limits.policy import MINUTE, Pacing
from promptmill.limits.rates import (
    begin_gently,
    hold_pace_until,
    in_outage,
    is_shared,
    ramp,
    recover,
    server_rate,
)
from promptmill.limits.records import INPUT, NEVER, OUTPUT, PoolRecord, Reservation


def settle_input(record: PoolRecord, held: Reservation, used: float, pacing: Pacing) -> None:
    """Replace the input estimate by what was counted, once, and learn from the difference."""
    if held.input_settled:
        return
    held.input_settled = 1.0
    asked = held.amounts[INPUT]
    if record.input_answers >= pacing.first_answers:
        expected = max(1.0, asked * record.input_used / max(1.0, record.input_asked))
        error = min((used / expected - 1) ** 2, 4.0)
        known = min(record.input_answers - pacing.first_answers + 1, pacing.memory)
        record.input_error += (error - record.input_error) / known
    fading = 1 - 1 / pacing.memory
    record.input_answers += 1
    record.input_asked = record.input_asked * fading + asked
    record.input_used = record.input_used * fading + used
    record.input_variance = max(0.0, record.input_variance - held.input_variance)
    give_back(record, held, INPUT, asked - used, pacing)


def settle_output(record: PoolRecord, held: Reservation, used: float, now: float, pacing: Pacing) -> None:
    """Replace the output estimate by what was produced, and learn length, spread and duration."""
    asked = held.amounts[OUTPUT]
    record.output_answers += 1
    fading = 1 - 1 / pacing.memory
    record.output_asked = record.output_asked * fading + asked
    record.output_used = record.output_used * fading + used
    surprise = used - asked * record.output_used / max(1.0, record.output_asked)
    weight = 1 / min(record.output_answers, pacing.memory)
    record.output_variance += weight * (surprise**2 - record.output_variance)
    weight = 1 / min(record.output_answers, pacing.latency_memory)
    record.output_mean += weight * (used - record.output_mean)
    record.latency += weight * (max(0.0, now - held.start) - record.latency)
    give_back(record, held, OUTPUT, asked - used, pacing)


def give_back(record: PoolRecord, held: Reservation, index: int, surplus: float, pacing: Pacing) -> None:
    """Credit what was reserved too much, or charge what was too little, to mirror and pacer.

    The pacer gets exactly the time that this surplus was charged, at the limit in force now, so that it never
    grants more than the ceiling's rate. What was too little is charged the same; but where the bucket holds plenty,
    at the limit and no more: a long answer of the gentle start ends after it, and at the price of that start it
    would hold the pace up for seconds.
    """
    record.minute_used[index] -= surplus
    if record.rate[index] <= 0 or held.rate[index] <= 0:
        return
    record.level[index] = min(record.capacity[index], record.level[index] + surplus)
    record.corrected[index] += surplus
    plenty = record.level[index] > pacing.set_point_max_share * record.capacity[index]
    asked = held.amounts[index]
    at_the_limit = 1 / record.rate[index]
    per_unit = pace_charged(record, held, index) / asked if asked > 0 else at_the_limit
    if surplus < 0 and plenty:
        per_unit = min(per_unit, at_the_limit)
    record.pacer[index] -= surplus * per_unit


def pace_charged(record: PoolRecord, held: Reservation, index: int) -> float:
    """Seconds of pace that a permit was charged, in seconds of the limit in force now; no more than it was charged."""
    return held.pace[index] * min(1.0, held.rate[index] / record.rate[index])


def leave(record: PoolRecord, held: Reservation) -> None:
    """Take a permit out of what is in flight; what it was charged stays charged."""
    record.in_flight -= 1
    record.output_in_flight -= held.amounts[OUTPUT]
    if not held.input_settled:
        record.input_variance = max(0.0, record.input_variance - held.input_variance)


def take_back(record: PoolRecord, held: Reservation) -> None:
    """Undo a grant of which the server counted nothing.

    Requests keep the pace they were charged: two calls may never start closer than the limit's interval. Where the
    answer had begun (its input is settled), the request was counted.
    """
    if not held.input_settled:
        record.minute_used[0] -= held.amounts[0]
        if record.rate[0] > 0 and held.rate[0] > 0:
            record.level[0] = min(record.capacity[0], record.level[0] + held.amounts[0])
    take_back_tokens(record, held)


def take_back_tokens(record: PoolRecord, held: Reservation) -> None:
    """The same for tokens alone, but for input that is settled; nothing is learned from a call that used none.

    This is no correction in the sense of `corrected`: a refusal comes at once, so of the calls whose headers are
    still to come nearly all were granted before it, and what the mirror said then never held its tokens back.
    """
    for index in (INPUT, OUTPUT):
        if index == INPUT and held.input_settled:
            continue
        record.minute_used[index] -= held.amounts[index]
        if record.rate[index] > 0 and held.rate[index] > 0:
            record.level[index] = min(record.capacity[index], record.level[index] + held.amounts[index])
            record.pacer[index] -= pace_charged(record, held, index)


def count_answer_without_headers(record: PoolRecord, pacing: Pacing) -> None:
    """Believe in a few seconds of capacity when answers come and never say anything."""
    if max(record.seen_at) != NEVER:
        return
    record.headerless += 1
    if record.headerless == pacing.headerless_answers:
        for index in range(3):
            enough = pacing.headerless_capacity * record.rate[index]
            record.capacity[index] = max(record.capacity[index], enough)


@dataclass(frozen=True, slots=True)
class _Sighting:
    """What one header said of one dimension. `own` is what the call itself had been counted before it."""

    index: int
    remaining: float
    own: float
    at: float


def observe(record: PoolRecord, held: Reservation, report: Settlement, now: float, pacing: Pacing) -> None:
    """Correct the mirror by what headers say is left; what nobody here used was used by others."""
    if report.headroom is None:
        return
    own_input = held.amounts[INPUT] if report.used is None else report.used.input_tokens
    for index, (dimension, own) in enumerate(zip(DIMENSIONS, (1.0, own_input, 0.0), strict=True)):
        remaining = report.headroom.remaining(dimension)
        if remaining is not None and record.rate[index] > 0:
            sighting = _Sighting(index, remaining, own, now)
            if record.seen_at[index] == NEVER:
                _doubt(record, index, pacing)
            _certify(record, held, sighting, pacing)
            _correct(record, held, sighting, pacing)


def _doubt(record: PoolRecord, index: int, pacing: Pacing) -> None:
    """Before the first header of a limit its bucket is not believed to hold what that of another limit held."""
    least = pacing.first_capacity * record.rate[index]
    least = max(1.0, least) if index == 0 else least
    if record.capacity[index] > least:
        record.corrected[index] += least - record.level[index]
        record.capacity[index] = record.level[index] = least
        record.full_seen[index] = 0.0


def _certify(record: PoolRecord, held: Reservation, sighting: _Sighting, pacing: Pacing) -> None:
    """The capacity is what a header has shown at most: believing in less is always safe."""
    index, rounding = sighting.index, _rounding(sighting.index, pacing)
    shown = sighting.remaining - rounding + sighting.own
    if record.learned[index] > 0:
        shown = min(shown, MINUTE * record.learned[index])
    if sighting.remaining > 0 and shown > record.capacity[index]:
        record.capacity[index] = shown
        record.full_seen[index] = 0.0
        return
    slack = 2 * rounding + pacing.dead_band[0] * record.rate[index]
    if index != OUTPUT and held.level_before[index] > shown + slack and not is_shared(record, index, pacing):
        record.full_seen[index] += 1


def _correct(record: PoolRecord, held: Reservation, sighting: _Sighting, pacing: Pacing) -> None:
    index, remaining = sighting.index, sighting.remaining
    first = record.seen_at[index] == NEVER
    lowest, middle, highest = _expected(record, held, index, pacing, first=first)
    error = min(0.0, remaining - lowest)
    if remaining > max(0.0, highest):
        error = remaining - highest
    passed = 0.0 if first else max(0.0, sighting.at - record.seen_at[index])
    record.seen_at[index] = sighting.at
    gain = 1.0 if first else passed / (passed + (pacing.observer_down if error < 0 else pacing.observer_up))
    correction = min(gain * error, max(0.0, record.capacity[index] - record.level[index]))
    record.level[index] += correction
    record.corrected[index] += correction
    if passed > 0:
        leak = pacing.foreign_leak if remaining < middle else pacing.foreign_leak_up
        drain = (record.foreign[index] - correction / pacing.foreign_time) * exp(-passed / leak)
        most = pacing.foreign_most * server_rate(record, index)
        record.foreign[index] = min(most, max(0.0, drain))


def _expected(
    record: PoolRecord, held: Reservation, index: int, pacing: Pacing, *, first: bool
) -> tuple[float, float, float]:
    """The levels that a header may show without telling anything new: lowest, likely, highest."""
    level = held.level_after[index] + record.corrected[index] - held.corrected[index]
    # A limit lowered since the grant has cut the server's bucket too: nobody else took that.
    level = min(level, record.capacity[index])
    width = pacing.dead_band[index] * record.rate[index]
    if is_shared(record, index, pacing):
        width *= pacing.dead_band_foreign
    width += _rounding(index, pacing)
    if index != OUTPUT:
        return (level, level, level) if first else (level - width, level, level + width)
    # The server has not yet counted the output that is still being produced.
    likely = level + unproduced_share(record, pacing) * held.output_in_flight
    most = level + held.output_in_flight
    if first:
        return most, likely, most
    spread = pacing.unsettled_sigmas * sqrt(held.in_flight * output_variance(record, pacing))
    return likely - spread - width, likely, most + spread + width


def _rounding(index: int, pacing: Pacing) -> float:
    return 0.0 if index == 0 else pacing.token_rounding


def refuse(record: PoolRecord, penalty: Penalty, now: float, pacing: Pacing) -> None:
    """A 429: everybody waits once, and returns gently. Its echoes only prolong the wait."""
    record.paused_until = max(record.paused_until, now + penalty.retry_after)
    if penalty.generation != record.generation:
        return
    record.generation += 1
    if penalty.dimension is not None:
        _empty(record, DIMENSIONS.index(penalty.dimension), pacing)
    record.overdrive = [0.0] * 3
    record.ramp_from = max(pacing.ramp_floor, pacing.ramp_after_refusal * ramp(record, now, pacing))
    record.ramp_at = record.paused_until
    hold_pace_until(record, record.paused_until, pacing)


def _empty(record: PoolRecord, index: int, pacing: Pacing) -> None:
    """The bucket the server named is empty, whatever the mirror says; what is in flight will still draw on it."""
    owed = unproduced_share(record, pacing) * record.output_in_flight if index == OUTPUT else 0.0
    emptied = min(record.level[index], -owed)
    record.corrected[index] += emptied - record.level[index]
    record.level[index] = emptied
    if index == 0:
        grown = record.request_jitter * pacing.request_jitter_growth
        record.request_jitter = min(pacing.request_jitter_most, grown)
        return
    most = pacing.foreign_most * server_rate(record, index)
    bump = pacing.foreign_bump * server_rate(record, index)
    record.foreign[index] = min(most, record.foreign[index] + bump)


def ease(record: PoolRecord, retry_after: float, now: float, pacing: Pacing) -> None:
    """A 529: their load, not our pace. Go slower for a while; the buckets are untouched.

    Where no call succeeds for long, it is everybody's affair: then one call at a time asks whether that is over, and
    all obey a `retry-after`. Else that is for its own call alone, for the others are being answered.
    """
    recover(record, now, pacing)
    if record.refused_since == NEVER or now - record.cut_at > pacing.idle_restart:
        record.refused_since = now
        record.outage_from = now + pacing.outage_patience + record.latency
    if now - record.cut_at > pacing.easing_interval:
        record.easing = max(pacing.easing_floor, record.easing * pacing.easing)
        record.cut_at = now
    if in_outage(record, now, pacing):
        pause = min(retry_after, pacing.outage_pause_most)
        record.paused_until = max(record.paused_until, now + pause)


def hear_answer(record: PoolRecord, held: Reservation, now: float, pacing: Pacing) -> None:
    """A call that began after the overloads did is answered: not everything is refused. What was, begins gently."""
    if record.refused_since == NEVER or held.start < record.refused_since:
        return
    if in_outage(record, now, pacing):
        record.easing, record.eased_at = 1.0, now
        begin_gently(record, now, pacing)
    record.refused_since = NEVER
