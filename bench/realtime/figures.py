"""What a run has reached, from the server's book alone, and what of it is not good enough.

The one idea: the book says when each call was admitted and when its tokens are produced, so consumption is
exact. The time by rate alone is max(total / limit) over the dimensions: nobody is faster without a saved-up
bucket. Moments count from the first admission.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from realtime.rows import HALF_WAY, Bar, Row
from realtime.stage import Played

from promptmill.dimensions import DIMENSIONS, Dimension
from promptmill.states import JobState

STEADY_FROM_S = 30.0
"""A gentle start is over by then; in a run of ten minutes twice that, as in the simulation."""
ON_THE_WIRE_S = 0.5
"""A call that was let go before the refusal reached us arrives within this."""
GRACE_S = 5.0
LONG_RUN_S = 600.0
NEARLY = 0.9


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One line of the table.

    Attributes:
        binding: the dimension that takes longest.
        utilisation: consumption over what was there in steady state, of the dimension that binds or, where
            others take nearly as long, of the one that is used most.
        utilisations: of every dimension.
        refused: answers with 429.
        overloaded: answers with 529.
        by_rate_s: the time by rate alone.
        last_s: the last admission.
        latency_s: mean, from admission to the last token.
        makespan_s: to the end of the last answer.
        once: every prompt was answered once.
        cost_equal: our ledger's sum is the server's.
        early: calls that arrived during retry-after, on the wire at the refusal, and sent after it.
        jain: see `Bar`.
        newcomer: see `Bar`.
        redis_us: Redis's time in scripts per job.
        commands: per job, where they were counted.
    """

    jobs: int
    binding: Dimension
    utilisation: float
    utilisations: dict[Dimension, float]
    refused: int
    overloaded: int
    by_rate_s: float
    last_s: float
    latency_s: float
    makespan_s: float
    once: bool
    cost_equal: bool
    redis_us: float
    early: tuple[int, int] | None = None
    jain: float | None = None
    newcomer: float | None = None
    commands: dict[str, float] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """The makespan over the least a client needs that never saves up."""
        return self.makespan_s / (self.by_rate_s + self.latency_s)

    @property
    def late_s(self) -> float:
        """The last admission after the time by rate alone; negative when a saved-up bucket was used."""
        return self.last_s - self.by_rate_s


@dataclass(frozen=True)
class _Supply:
    """What a dimension grants over time: a rate until a moment, another after it."""

    rates: tuple[float, float]
    changes_s: float

    def until(self, moment: float) -> float:
        """What has become available by then."""
        before = min(moment, self.changes_s)
        return self.rates[0] * before + self.rates[1] * (moment - before)

    def time_for(self, total: float) -> float:
        """When so much has become available."""
        first = self.until(self.changes_s)
        if total <= first:
            return total / self.rates[0]
        return self.changes_s + (total - first) / self.rates[1]


def measure(played: Played) -> Figures:
    """The figures of a run."""
    book, row = played.ledger, played.row
    calls = sorted(book["calls"], key=lambda call: call["at_s"])
    start = calls[0]["at_s"]
    half = HALF_WAY * played.seconds - start
    supplies = [
        _Supply((before / 60, later / 60), half)
        for before, later in zip(row.per_minute(later=False), row.per_minute(later=True), strict=True)
    ]
    totals = [len(calls), *(sum(call[name] for call in calls) for name in ("input_tokens", "output_tokens"))]
    times = [supply.time_for(total) for supply, total in zip(supplies, totals, strict=True)]
    longest = max(range(len(times)), key=times.__getitem__)
    binding = [each for each, time in zip(DIMENSIONS, times, strict=True) if time > NEARLY * times[longest]]
    admitted = [call["at_s"] - start for call in calls]
    latency = sum(call["ends_s"] - call["at_s"] for call in calls) / len(calls)
    spans = _steady(played, admitted, half)
    # What was admitted in the ramp is produced up to an answer's length later.
    later = [(min(since + latency, until), until) for since, until in spans]
    utilisations = {
        each: _utilisation(calls, start, each, supply, later if each is Dimension.OUTPUT_TOKENS else spans)
        for each, supply in zip(DIMENSIONS, supplies, strict=True)
    }
    statuses = [status.jobs[JobState.SUCCEEDED] for status in played.statuses]
    jobs = sum(len(prompts) for prompts in played.prompts)
    by_status = book["refused"]["by_status"]
    return Figures(
        jobs=jobs,
        binding=DIMENSIONS[longest],
        utilisation=max(utilisations[each] for each in binding),
        utilisations=utilisations,
        refused=by_status.get("429", 0),
        overloaded=by_status.get("529", 0),
        by_rate_s=times[longest],
        last_s=admitted[-1],
        latency_s=latency,
        makespan_s=max(call["ends_s"] for call in calls) - start,
        once=sum(statuses) == jobs and _answered_once(played, jobs),
        cost_equal=_cost_equal(played, jobs),
        redis_us=played.redis_us / jobs,
        early=_early(book, calls) if row.refuse_once else None,
        **_two_batches(played, calls, supplies),
        commands=played.commands.per_job(jobs) if played.commands else {},
    )


def failings(row: Row, figures: Figures, seconds: float) -> list[str]:
    """What is not as the bar wants it, in words; nothing when all is."""
    bar = row.bar
    found = [] if figures.once else ["not every prompt answered once"]
    found += [] if figures.cost_equal else ["cost is not the ledger's"]
    if figures.utilisation < bar.utilisation:
        found.append(f"utilisation {figures.utilisation:.3f} < {bar.utilisation:g}")
    if figures.refused > bar.refused:
        found.append(f"{figures.refused} x 429 > {bar.refused}")
    if seconds >= LONG_RUN_S:
        if figures.ratio > bar.ratio:
            found.append(f"ratio {figures.ratio:.3f} > {bar.ratio:g}")
    elif figures.late_s > (allowed := bar.late_s + bar.stretch * figures.by_rate_s):
        found.append(f"last admission {figures.late_s:+.1f} s > {allowed:+.1f}")
    return found + _special_failings(bar, figures)


def _special_failings(bar: Bar, figures: Figures) -> list[str]:
    found = []
    if figures.early is not None and figures.early[1]:
        found.append(f"{figures.early[1]} calls within retry-after")
    if figures.jain is not None and figures.jain < bar.jain:
        found.append(f"Jain {figures.jain:.3f} < {bar.jain:g}")
    if figures.newcomer is not None and figures.newcomer > bar.newcomer:
        found.append(f"newcomer {figures.newcomer:.2f} of its fair time > {bar.newcomer:g}")
    limits = {"scripts": 6.0, "denied": 2.0}
    for name, most in limits.items():
        if figures.commands.get(name, 0.0) > most:
            found.append(f"{name} per job {figures.commands[name]:.1f} > {most:g}")
    return found


def _steady(played: Played, admitted: Sequence[float], half: float) -> list[tuple[float, float]]:
    """The spans that count: from the end of the ramp to the admission of 95 % of the calls.

    In a short run without what follows a loss of state or a refusal, which is a second ramp.
    """
    end = admitted[int(0.95 * (len(admitted) - 1))]
    if played.seconds >= LONG_RUN_S:
        return [(2 * STEADY_FROM_S, end)]
    begin = min(STEADY_FROM_S, 0.5 * end)
    if not played.row.calm_s:
        return [(begin, end)]
    spans = [(begin, min(half, end)), (half + played.row.calm_s, end)]
    return [(since, until) for since, until in spans if until > since]


def _utilisation(
    calls: Sequence[dict[str, Any]],
    start: float,
    dimension: Dimension,
    supply: _Supply,
    spans: Sequence[tuple[float, float]],
) -> float:
    used = sum(
        _consumed(call, dimension, since + start, until + start) for call in calls for since, until in spans
    )
    there = sum(supply.until(until) - supply.until(since) for since, until in spans)
    return used / there if there else 0.0


def _consumed(call: dict[str, Any], dimension: Dimension, since: float, until: float) -> float:
    """What one call takes of a dimension in a span; output is produced evenly."""
    if dimension is not Dimension.OUTPUT_TOKENS:
        amount = 1.0 if dimension is Dimension.REQUESTS else call["input_tokens"]
        return float(amount) if since <= call["at_s"] < until else 0.0
    begins, ends = call["begins_s"], max(call["ends_s"], call["begins_s"] + 1e-6)
    overlap = max(0.0, min(until, ends) - max(since, begins))
    return float(call["output_tokens"] * overlap / (ends - begins))


def _answered_once(played: Played, jobs: int) -> bool:
    """By the server's count; a call whose worker was killed is answered to nobody, and then once more."""
    if played.row.killed:
        return set(played.ledger["answered"]) <= {"1", "2"}
    return bool(played.ledger["answered"] == {"1": jobs})


def _cost_equal(played: Played, jobs: int) -> bool:
    """To the nano-dollar; what a killed worker had in flight is billed and known to be unknown."""
    ours = sum(status.batch.cost_nanos for status in played.statuses)
    billed = played.ledger["billed"]
    unknown = sum(status.batch.unpriced_attempts for status in played.statuses)
    if not unknown:
        return bool(ours == billed["cost_nanos"])
    return bool(ours <= billed["cost_nanos"] and billed["answers"] - jobs <= unknown)


def _early(book: dict[str, Any], calls: Sequence[dict[str, Any]]) -> tuple[int, int]:
    """Calls that arrived within retry-after of the first refusal: those on the wire, and the others."""
    refusals = [at for at, status, _, _ in book["refused"]["times"] if status == 429]
    if not refusals:
        return (0, 0)
    first = min(refusals)
    arrivals = [call["at_s"] for call in calls] + refusals
    waiting = [at - first for at in arrivals if 0 < at - first < 5.0]
    on_the_wire = sum(after <= ON_THE_WIRE_S for after in waiting)
    return (on_the_wire, len(waiting) - on_the_wire)


def _two_batches(
    played: Played, calls: Sequence[dict[str, Any]], supplies: Sequence[_Supply]
) -> dict[str, float | None]:
    """How fair it was to a batch that came later."""
    if len(played.row.loads) == 1 or not played.row.loads[1].begins:
        return {}
    first, second = played.row.loads
    came = played.submitted_s[1]
    moments = [[call["at_s"] for call in calls if call["prompt"] in prompts] for prompts in played.prompts]
    rates = [
        min(supply.rates[0] / each for supply, each in zip(supplies, load.cost, strict=True))
        for load in (first, second)
    ]
    share = second.share / (first.share + second.share)
    ideal = len(moments[1]) / (share * rates[1])
    since, until = came + GRACE_S, max(moments[1])
    got = [
        sum(since <= at < until for at in of_batch) / rate / load.share
        for of_batch, rate, load in zip(moments, rates, (first, second), strict=True)
    ]
    squares = sum(each * each for each in got)
    return {
        "jain": sum(got) ** 2 / (2 * squares) if squares else 0.0,
        "newcomer": (until - came - GRACE_S) / ideal,
    }
