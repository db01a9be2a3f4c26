"""Why the next call of a pool has to wait, in one word for a person.

A call of average size is planned on the record, as the next real one will be, and what its start waits for is
named. Nothing is changed.
"""

from collections.abc import Sequence
from enum import StrEnum

from promptmill.dimensions import DIMENSIONS
from promptmill.limits.planning import Plan, plan
from promptmill.limits.policy import Pacing
from promptmill.limits.rates import gentle_share, in_outage, refill, share_after_overloads
from promptmill.limits.records import INPUT, PoolRecord

FOREIGN_SHOWN = 0.1
"""Share of a limit from which another program is named; below it the limit itself is."""

TYPICAL = (1.0, 1000.0, 300.0)
"""Requests, input and output tokens of a call, before the first permit has told."""

_AT_ONCE = 1e-3
"""s; a start this near is no wait."""


class Hindrance(StrEnum):
    """What holds the next call back: a moment of the pool, or a limit in force."""

    PAUSED = "paused"
    OVERLOADED = "overloaded"
    STARTING = "starting"
    SAVING_UP = "saving_up"
    OTHER_PROGRAMS = "other_programs"
    REQUESTS = "requests"
    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"


_LIMITS = tuple(Hindrance(dimension.value) for dimension in DIMENSIONS)


def hindrance(record: PoolRecord, now: float, pacing: Pacing, *, waiting: bool) -> Hindrance | None:
    """What the next call waits for; None when it could start now and nobody is known to be `waiting`."""
    if record.paused_until > now:
        return Hindrance.PAUSED
    each = record.mean_cost if record.mean_cost[0] > 0 else list(TYPICAL)
    outcome = plan(record, each, now, pacing)
    if outcome.start <= now + _AT_ONCE and not waiting:
        return None
    if in_outage(record, now, pacing):
        return Hindrance.OVERLOADED
    index = outcome.binding if outcome.binding is not None else _slowest(each, outcome)
    return None if index is None else _reason(record, index, now, pacing)


def _slowest(each: Sequence[float], outcome: Plan) -> int | None:
    """The dimension whose pace allows the fewest average calls."""
    limited = [index for index in range(3) if outcome.pace[index] > 0 and each[index] > 0]
    return min(limited, key=lambda index: outcome.pace[index] / each[index], default=None)


def _reason(record: PoolRecord, index: int, now: float, pacing: Pacing) -> Hindrance:
    """What makes a dimension slower than its limit, or else the limit."""
    if index == INPUT and now < record.saving_until:
        return Hindrance.SAVING_UP
    factors = {
        Hindrance.OVERLOADED: share_after_overloads(record, now, pacing),
        Hindrance.STARTING: gentle_share(record, index, now, pacing),
        Hindrance.OTHER_PROGRAMS: _own_share(record, index, pacing),
    }
    heaviest = min(factors, key=lambda each: factors[each])
    return heaviest if factors[heaviest] < 1.0 else _LIMITS[index]


def _own_share(record: PoolRecord, index: int, pacing: Pacing) -> float:
    rate = record.rate[index]
    share = min(1.0, refill(record, index, pacing) / rate) if rate > 0 else 1.0
    return share if share <= 1 - FOREIGN_SHOWN else 1.0
