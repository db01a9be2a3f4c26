"""What follows a failure: one pure function from the failure and the attempts so far to a decision.

Deciding is here, acting is in `workers.outcomes`. Backoff is exponential with full jitter above a least delay;
`retry-after` is a minimum and is never shortened. Every fault has its own count: what our pace or the account
is to blame for, and an outage, is never counted against the job; what the server failed at is, so often,
and not before an outage of some minutes would be over; what the prompt is to blame for ends it at once. A job
with a deadline expires by it; without one, trying ends after seven days.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any

from promptmill.errors import (
    ClaudeError,
    ConnectionFailed,
    KeyRejected,
    Overloaded,
    PromptRejected,
    RateLimited,
    ServerFailed,
    SpendCapReached,
)

HORIZON = timedelta(days=7)
"""How long a job without a deadline is tried."""
LEAST_REST = timedelta(minutes=10)
"""A spend limit that should have lifted by now, and has not, is not asked again before this."""

UNREACHABLE = "unreachable"
"""The outcome of a call that never left: nobody answered. Told from `connection_failed`, which is counted."""
TRUNCATED = "truncated"
"""The option of a batch about answers cut off at `max_tokens`, and the outcome of a call whose answer was."""
ASK_AGAIN_UP_TO = "ask_again_up_to"
COUNTED = (ServerFailed.kind, ConnectionFailed.kind)
_OUTAGE = (Overloaded.kind, UNREACHABLE)


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again after `after` seconds; `counted` when it used up one of the job's attempts."""

    after: float
    counted: bool


@dataclass(frozen=True, slots=True)
class SwapKey:
    """This key cannot make this call: retire it and try again with another at once."""


@dataclass(frozen=True, slots=True)
class Hold:
    """No call of this account succeeds until `until`, or where that is None until a person acts."""

    reason: str
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The job has failed for good."""

    reason: str


RetryDecision = Retry | SwapKey | Hold | GiveUp


@dataclass(frozen=True, slots=True)
class Backoff:
    """A delay drawn evenly below a bound that doubles from `first` to `ceiling` seconds; never below `least`."""

    first: float
    ceiling: float

    @property
    def least(self) -> float:
        """Seconds; so that no run of luck makes a tight loop."""
        return self.first / 10

    def delay(self, tries: int, *, at_least: float, rng: random.Random) -> float:
        """Seconds before the next try after `tries` others; jitter comes on top of a `retry-after`."""
        span = min(self.ceiling, self.first * 2 ** min(tries, 30))
        return max(0.0, at_least) + rng.uniform(self.least, span)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how patiently a job is tried.

    Attributes:
        max_counted: tries that count, before a job fails.
        outage: a job that is met by silence or by a server's error does not fail before that has lasted so long: in
            an outage every job meets it, again and again.
    """

    max_counted: int = 6
    outage: timedelta = timedelta(seconds=120)
    rate_limited: Backoff = Backoff(first=0.5, ceiling=5)
    overloaded: Backoff = Backoff(first=2, ceiling=120)
    failed: Backoff = Backoff(first=1, ceiling=60)


@dataclass(frozen=True, slots=True)
class Tries:
    """What a job has been through before this failure: failed attempts by outcome, and since when it is tried."""

    first_opened_at: datetime
    failures: Mapping[str, int] = field(default_factory=dict)
    deadline: datetime | None = None
    first_failed_at: Mapping[str, datetime] = field(default_factory=dict)
    begun: Mapping[str, int] = field(default_factory=dict)

    def of(self, *outcomes: str) -> int:
        """How many attempts ended so."""
        return sum(self.failures.get(outcome, 0) for outcome in outcomes)


def outcome_of(failure: ClaudeError) -> str:
    """The word under which a failed attempt is kept, and counted in `Tries.failures`."""
    return UNREACHABLE if isinstance(failure, ConnectionFailed) and not failure.sent else failure.kind


def decide(
    failure: ClaudeError, tries: Tries, policy: RetryPolicy, *, now: datetime, rng: random.Random
) -> RetryDecision:
    """The one place that says what a failure leads to (design, section 5)."""
    match failure:
        case PromptRejected():
            return GiveUp(str(failure))
        case SpendCapReached(lifts_at=lifts_at):
            return Hold(str(failure), lifts_at and max(lifts_at, now + LEAST_REST))
        case KeyRejected():
            return SwapKey()
        case RateLimited() | Overloaded() | ServerFailed() | ConnectionFailed():
            return _again(failure, tries, policy, now=now, rng=rng)
        case _:
            return GiveUp(f"unknown failure: {failure}")


def _again(
    failure: ClaudeError, tries: Tries, policy: RetryPolicy, *, now: datetime, rng: random.Random
) -> RetryDecision:
    counted = outcome_of(failure) in COUNTED
    if counted and _has_failed_enough(failure, tries, policy, now):
        return GiveUp(f"failed {tries.of(*COUNTED) + 1} times, last: {failure}")
    after = _delay(failure, tries, policy, rng)
    if tries.deadline is None and now + timedelta(seconds=after) >= tries.first_opened_at + HORIZON:
        return GiveUp(f"no answer in {HORIZON.days} days of trying, last: {failure}")
    return Retry(after, counted=counted)


def _has_failed_enough(failure: ClaudeError, tries: Tries, policy: RetryPolicy, now: datetime) -> bool:
    """Whether one more counted failure is the last.

    An answer that began and broke off was paid for, so that may happen so often and no more. Silence and a server's
    errors may lie in everybody's way: they must have lasted for longer than an outage too.
    """
    if failure.status is not None and failure.status < HTTPStatus.BAD_REQUEST:
        return sum(tries.begun.get(each, 0) for each in COUNTED) + 1 >= policy.max_counted
    since = min(
        (tries.first_failed_at[each] for each in COUNTED if each in tries.first_failed_at), default=now
    )
    return tries.of(*COUNTED) + 1 >= policy.max_counted and now - since >= policy.outage


def _delay(failure: ClaudeError, tries: Tries, policy: RetryPolicy, rng: random.Random) -> float:
    """Each backoff grows by its own failures: a job that met a 429 is no less patient with an outage for it."""
    match failure:
        case RateLimited():
            backoff, before = policy.rate_limited, tries.of(RateLimited.kind)
        case Overloaded() | ConnectionFailed(sent=False):
            # Nobody answers at all: not the prompt's fault, nothing paid, and it may last for minutes.
            backoff, before = policy.overloaded, tries.of(*_OUTAGE)
        case _:
            backoff, before = policy.failed, tries.of(*COUNTED)
    return backoff.delay(before, at_least=failure.retry_after or 0.0, rng=rng)


def truncation_policy(ask_again_up_to: int | None) -> dict[str, Any]:
    """What a batch remembers of it: keep what was cut off (None), or ask again with room for up to so many tokens."""
    return {} if ask_again_up_to is None else {TRUNCATED: {ASK_AGAIN_UP_TO: ask_again_up_to}}


def ceiling(max_tokens: int, options: Mapping[str, Any], failures: Mapping[str, int]) -> int:
    """`max_tokens` of the next call: twice as much for each answer that was cut off, up to the batch's cap."""
    room = max_tokens << min(failures.get(TRUNCATED, 0), 30)
    return max(max_tokens, min(_cap(options), room))


def asks_again(stop_reason: str | None, max_tokens: int, options: Mapping[str, Any]) -> bool:
    """Whether an answer that stopped so, under that ceiling, is asked for again."""
    return stop_reason == "max_tokens" and max_tokens < _cap(options)


def _cap(options: Mapping[str, Any]) -> int:
    return int(options.get(TRUNCATED, {}).get(ASK_AGAIN_UP_TO, 0))


AFTER_LOSS = Backoff(first=30, ceiling=600)
"""Seconds: not all that were in flight beside the one that ends processes are so again; `workers.suspects` sees to the
rest."""


def after_loss(losses: int, *, max_losses: int, rng: random.Random) -> Retry | GiveUp:
    """What follows when the process that worked on a job is lost for the `losses`th time.

    The first loss is nobody's fault. From the second on the job rests for a random time that doubles, and the
    `max_losses`th ends it, for a prompt that ends every process it comes to would go round without end.
    """
    if losses >= max_losses:
        return GiveUp(f"its worker process ended {losses} times during the call")
    if losses <= 1:
        return Retry(after=0.0, counted=False)
    return Retry(AFTER_LOSS.delay(losses - 2, at_least=0.0, rng=rng), counted=False)
