"""When a call may start, and what granting it does to the record.

A start is the latest of: the end of a pause; where nothing succeeds, some seconds after the last call; the moment the mirror holds the call and its reserves, in each
dimension; the moment the pacer allows it. `lua/acquire.lua` is this module in Lua.
"""

from dataclasses import dataclass, field
from math import sqrt

from promptmill.limits.policy import Pacing
from promptmill.limits.rates import gentle_share, in_outage, is_shared, refill
from promptmill.limits.records import INPUT, OUTPUT, PoolRecord, Reservation


@dataclass(slots=True)
class Plan:
    """The earliest start of one call, and the figures it was reckoned with, per dimension."""

    base: float
    start: float
    binding: int | None = None
    error: float = 0.0
    need: list[float] = field(default_factory=lambda: [0.0] * 3)
    level: list[float] = field(default_factory=lambda: [0.0] * 3)
    bank: list[float] = field(default_factory=lambda: [0.0] * 3)
    pace: list[float] = field(default_factory=lambda: [0.0] * 3)

    def not_before(self, moment: float, index: int | None) -> None:
        """Move the start back, and remember what for."""
        if moment > self.start:
            self.start, self.binding = moment, index


def plan(record: PoolRecord, amounts: list[float], now: float, pacing: Pacing) -> Plan:
    """Find the earliest start of a call, without changing anything."""
    base = max(now, record.moment)
    outcome = Plan(base=base, start=max(base, record.paused_until))
    if in_outage(record, now, pacing):
        outcome.not_before(record.moment + pacing.probe_interval, None)
    outcome.error = input_error(record, pacing)
    for index in range(3):
        if record.rate[index] > 0:
            _plan_dimension(record, outcome, index, amounts[index], pacing)
    if record.in_flight >= in_flight_cap(record, pacing):
        outcome.not_before(now + pacing.horizon + 0.5 * record.interval, OUTPUT)
    return outcome


def _plan_dimension(record: PoolRecord, outcome: Plan, index: int, amount: float, pacing: Pacing) -> None:
    rate, refilled = record.rate[index], refill(record, index, pacing)
    bank = outcome.bank[index] = bankable(record, index, pacing)
    need = outcome.need[index] = _need(record, outcome, index, amount, pacing)
    # The level may grow past the bank up to what this call needs: it pays before it starts.
    level = record.level[index] + refilled * (outcome.base - record.moment)
    level = outcome.level[index] = min(level, max(bank, need))
    if level < need:
        outcome.not_before(outcome.base + (need - level) / refilled, index)
    outcome.not_before(record.pacer[index] - pacing.tolerance[index], index)

    surplus = level - amount - _set_point(record, index, bank, outcome.base, pacing)
    steering = surplus / (rate * (pacing.surplus_time if surplus > 0 else pacing.deficit_time))
    steering = max(-pacing.slowest, min(record.overdrive[index], steering))
    share = gentle_share(record, index, max(outcome.base, record.paused_until), pacing) * record.easing
    outcome.pace[index] = min(rate, refilled) * share * (1 + steering)


def bankable(record: PoolRecord, index: int, pacing: Pacing) -> float:
    """How high the level can rise: what the server cannot bank while output lags behind is left out."""
    capacity = record.capacity[index]
    if index != OUTPUT:
        return capacity
    return capacity - min(
        pacing.lag_share * capacity, unproduced_share(record, pacing) * record.output_in_flight
    )


def unproduced_share(record: PoolRecord, pacing: Pacing) -> float:
    """The share of the output in flight that is still to come, on average; less for uneven answers."""
    if record.output_mean < 1:
        return 0.5
    return max(0.0, 1 - output_variance(record, pacing) / record.output_mean**2) / 2


def output_variance(record: PoolRecord, pacing: Pacing) -> float:
    """Of one answer's length around its estimate; 0 until a few answers are known."""
    return record.output_variance if record.output_answers > pacing.first_answers else 0.0


def input_error(record: PoolRecord, pacing: Pacing) -> float:
    """The relative standard error of input estimates, from an assumed one on."""
    answers = min(max(0.0, record.input_answers - pacing.first_answers), pacing.memory)
    prior = pacing.prior_weight * pacing.prior_error**2
    return sqrt((prior + answers * record.input_error) / (pacing.prior_weight + answers))


def _need(record: PoolRecord, outcome: Plan, index: int, amount: float, pacing: Pacing) -> float:
    """What the mirror must hold before the call: its amount and reserves that are not charged."""
    rate, bank, capacity = record.rate[index], outcome.bank[index], record.capacity[index]
    reserve = rate * pacing.guard[index]
    unsettled = 0.0
    if index == INPUT:
        unsettled = pacing.unsettled_sigmas * sqrt(record.input_variance)
        unsettled = min(pacing.input_reserve_share * bank, unsettled)
        reserve += pacing.input_sigmas * outcome.error * amount + unsettled
    if index == OUTPUT:
        spread = sqrt(max(0.0, record.in_flight) * output_variance(record, pacing))
        reserve += pacing.unsettled_sigmas * spread
        reserve = min(pacing.output_reserve_share * capacity, reserve)
    need = amount + reserve
    if index == OUTPUT:
        need = min(need, bank)  # the server asks only that the level is above zero
    if record.full_seen[index] >= pacing.full_after:
        need = min(need, bank + rate * record.request_jitter + unsettled)
    return need


def _set_point(record: PoolRecord, index: int, bank: float, moment: float, pacing: Pacing) -> float:
    """The level that the pace is steered to."""
    seconds = pacing.set_point_seconds * record.rate[index]
    most = pacing.set_point_max_share * bank
    if any(is_shared(record, each, pacing) for each in range(3)):
        seconds, most = pacing.set_point_shared * seconds, pacing.set_point_shared_max_share * bank
    usual = max(pacing.set_point_share * bank, min(seconds, most))
    if index == INPUT and moment < record.saving_until:
        return max(usual, record.saving_for)
    return usual


def in_flight_cap(record: PoolRecord, pacing: Pacing) -> float:
    """Little's law: more calls than this in flight would produce more output than the limit allows."""
    rate = record.rate[OUTPUT]
    speed = record.output_mean / record.latency if record.latency > 0 else 0.0
    if rate <= 0 or speed <= 0 or record.output_answers < pacing.little_after:
        return float("inf")
    slack = pacing.little_slack + record.capacity[OUTPUT] / (4 * rate * record.latency)
    return max(2.0, min(rate, refill(record, OUTPUT, pacing)) / speed * slack)


def commit(record: PoolRecord, outcome: Plan, amounts: list[float], pacing: Pacing) -> Reservation:
    """Charge a planned call to the record."""
    charged = [0.0] * 3
    weight = 0.05 if record.mean_cost[0] > 0 else 1.0
    for index in range(3):
        if record.rate[index] > 0:
            charged[index] = _charge(record, outcome, index, amounts[index], pacing)
        record.minute_used[index] += amounts[index]
        record.mean_cost[index] += (amounts[index] - record.mean_cost[index]) * weight
    if outcome.need[INPUT] >= record.saving_for:
        record.saving_until = 0.0
    record.interval += 0.05 * (min(10.0, outcome.start - record.moment) - record.interval)
    record.moment = outcome.start
    record.in_flight += 1
    record.output_in_flight += amounts[OUTPUT]
    variance = (outcome.error * amounts[INPUT]) ** 2
    record.input_variance += variance
    return Reservation(
        epoch=record.epoch,
        generation=record.generation,
        start=outcome.start,
        amounts=list(amounts),
        pace=charged,
        rate=list(record.rate),
        level_before=list(outcome.level),
        level_after=list(record.level),
        corrected=list(record.corrected),
        in_flight=record.in_flight,
        output_in_flight=record.output_in_flight,
        input_variance=variance,
    )


def _charge(record: PoolRecord, outcome: Plan, index: int, amount: float, pacing: Pacing) -> float:
    """Debit mirror and pacer in one dimension; return the seconds of pace that it took."""
    outcome.level[index] += refill(record, index, pacing) * (outcome.start - outcome.base)
    record.level[index] = min(outcome.bank[index], outcome.level[index]) - amount
    charged = amount / outcome.pace[index]
    record.pacer[index] = max(record.pacer[index], outcome.start) + charged
    if index == 0:
        # A bucket of hardly more than one request has no room for arrivals that come early.
        slack = (max(1.0, record.rate[0]) - 1) / record.rate[0]
        record.pacer[0] += max(0.0, record.request_jitter - slack)
    return charged
