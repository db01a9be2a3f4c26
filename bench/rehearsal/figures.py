"""What came of a rehearsal, in the figures of the table of bars.

`least` is the time that the busiest limit asks for; `ratio` is the makespan over that and a mean answer;
`utilisation` is what was counted of the busiest limit from the first minute to the admission of 95 % of the
jobs. More than 1 means that a saved-up bucket was used.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from bench.rehearsal.scene import Batch, Scene
from bench.rehearsal.stage import Call, Events
from promptmill.dimensions import DIMENSIONS, Amounts
from promptmill.simulator.limits import Tenant

SPEED, FIRST_S, TRIP_S = 70, 1.0, 0.1
"""Tokens per second, seconds to the first token, and on the network, of the mean answer."""
GRACE_S = 5.0
"""A new batch may wait so long for its share."""
SHARE_SPAN_S = 30.0
"""Over which that share is then taken."""


@dataclass(frozen=True, slots=True)
class Fairness:
    """How two batches shared the limits.

    Attributes:
        jain: Jain's index of what each was granted, in seconds of its busiest limit, while both waited; 1 is equal.
        took: seconds from submission to the last answer of the smaller batch.
        ideal: seconds that it takes with half of the limits.
        early_share: of the smaller batch, from 5 to 35 s after its submission.
    """

    jain: float
    took: float
    ideal: float
    early_share: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """The figures of one rehearsal."""

    makespan: float
    least: float
    latency: float
    utilisation: float
    last_start: float
    refusals: int
    overloads: int
    deferred: int
    open_permits: int
    answered_once: bool
    fairness: Fairness | None

    @property
    def ratio(self) -> float:
        """The makespan over what is possible without saved-up capacity."""
        return self.makespan / (self.least + self.latency)

    @property
    def late(self) -> float:
        """Seconds from when the limits allow the last admission to when it was."""
        return self.last_start - self.least


class Supply:
    """What one limit supplies over time, without what a tenant takes."""

    def __init__(self, per_minute: float, tenant: Tenant | None) -> None:
        self._rate = per_minute / 60
        self._tenant = tenant

    def within(self, begins: float, ends: float) -> float:
        """Units between two moments."""
        taken = 0.0
        if self._tenant:
            overlap = min(ends, self._tenant.ends) - max(begins, self._tenant.begins)
            taken = max(0.0, overlap) * self._tenant.share
        return (ends - begins - taken) * self._rate

    def time_for(self, amount: float) -> float:
        """Seconds from the beginning until so much was supplied; for tenants that stay."""
        tenant = self._tenant
        if not tenant or amount <= self._rate * tenant.begins:
            return amount / self._rate
        rest = amount - self._rate * tenant.begins
        return tenant.begins + rest / (self._rate * (1 - tenant.share))


def judge(scene: Scene, events: Events) -> Outcome:
    """Derive the figures of a rehearsal."""
    jobs = [job for _, job in events.answered]
    supplies = [Supply(limit, scene.tenant) for limit in scene.enforced]
    needed = _needed(events)
    spans = [supply.time_for(amount) for supply, amount in zip(supplies, needed, strict=True)]
    binding = spans.index(max(spans))
    starts = sorted(call.at for call in events.calls)
    until = starts[int(len(starts) * 0.95)]
    since = min(60.0, until / 2)
    used = sum(_used(call, binding, since, until) for call in events.calls)
    return Outcome(
        makespan=max(at for at, _ in events.answered),
        least=spans[binding],
        latency=sum(job.output_tokens for job in jobs) / len(jobs) / SPEED + FIRST_S + TRIP_S,
        utilisation=used / supplies[binding].within(since, until),
        last_start=starts[-1],
        refusals=events.refusals,
        overloads=events.overloads,
        deferred=events.deferred,
        open_permits=events.open_permits,
        answered_once=len({id(job) for job in jobs}) == sum(batch.jobs for batch in scene.submissions()),
        fairness=_fairness(scene, events) if len(scene.batches) > 1 else None,
    )


def _needed(events: Events) -> tuple[float, float, float]:
    """What the answers took; calls of which nobody heard again are not needed."""
    jobs = [job for _, job in events.answered]
    lost = (len(events.calls) - len(jobs)) / len(events.calls)
    counted = sum(call.input_tokens for call in events.calls) * (1 - lost)
    return (len(jobs), counted, sum(job.output_tokens for job in jobs))


def _used(call: Call, index: int, since: float, until: float) -> float:
    """What the server counted of a call between two moments; output as it is produced."""
    if DIMENSIONS[index] is DIMENSIONS[2]:
        overlap = min(until, call.ends) - max(since, call.begins)
        return max(0.0, overlap) / max(1e-9, call.ends - call.begins) * call.output_tokens
    if not since <= call.at < until:
        return 0.0
    return 1.0 if index == 0 else float(call.input_tokens)


def _fairness(scene: Scene, events: Events) -> Fairness:
    small = min(scene.batches, key=lambda batch: batch.jobs)
    served = {
        batch.name: [
            (call.at, _dominant(call, scene.enforced)) for call in events.calls if call.batch == batch.name
        ]
        for batch in scene.batches
    }
    both = (
        max(batch.at for batch in scene.batches),
        min(calls[-1][0] for calls in served.values()),
    )
    shares = [_sum(calls, *both) for calls in served.values()]
    grace = (small.at + GRACE_S, small.at + GRACE_S + SHARE_SPAN_S)
    early = {name: _sum(calls, *grace) for name, calls in served.items()}
    return Fairness(
        jain=sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares)),
        took=_end(small, events) - small.at,
        ideal=2 * sum(cost for _, cost in served[small.name]),
        early_share=early[small.name] / sum(early.values()),
    )


def _end(batch: Batch, events: Events) -> float:
    return max(at for at, job in events.answered if job.batch == batch.name)


def _dominant(call: Call, limits: Amounts) -> float:
    """Seconds of the limit that a call uses most."""
    used = (1, call.input_tokens, call.output_tokens)
    return max(each * 60 / limit for each, limit in zip(used, limits, strict=True))


def _sum(calls: Sequence[tuple[float, float]], since: float, until: float) -> float:
    moments = [at for at, _ in calls]
    return sum(cost for _, cost in calls[bisect_left(moments, since) : bisect_left(moments, until + 1e-9)])
