"""What follows a failure: one pure function from the failure and the attempts so far to a decision.

Deciding is here, acting is in `workers.outcomes`. Backoff is exponential with full jitter; `retry-after`
is a minimum and is never shortened. What is our pace's or the account's fault is not counted against
the job; such retries end with the job's deadline.
"""

import random
from dataclasses import dataclass
from datetime import datetime, timedelta

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

UNCOUNTED_HORIZON = timedelta(days=7)


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
    """Nobody can call until a person acts: the batches of the account are paused with the reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The job has failed for good."""

    reason: str


RetryDecision = Retry | SwapKey | Hold | GiveUp


@dataclass(frozen=True, slots=True)
class Backoff:
    """A delay that doubles from `first` to `ceiling` seconds and is drawn evenly from zero up to it."""

    first: float
    ceiling: float

    def delay(self, tries: int, *, at_least: float, rng: random.Random) -> float:
        """Seconds before try number `tries` + 1; jitter comes on top of a `retry-after`, never below it."""
        span = min(self.ceiling, self.first * 2 ** min(tries, 30))
        return at_least + rng.uniform(0, span)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how patiently a job is tried."""

    max_counted: int = 6
    rate_limited: Backoff = Backoff(first=0.5, ceiling=5)
    overloaded: Backoff = Backoff(first=2, ceiling=120)
    failed: Backoff = Backoff(first=1, ceiling=60)


@dataclass(frozen=True, slots=True)
class Tries:
    """What a job has been through before this failure was counted."""

    counted: int
    total: int
    first_opened_at: datetime
    deadline: datetime | None = None


def decide(  # noqa: PLR0911  # one return per kind of failure: it reads as the table it is
    failure: ClaudeError, tries: Tries, policy: RetryPolicy, *, now: datetime, rng: random.Random
) -> RetryDecision:
    """The one place that says what a failure leads to (design, section 5)."""
    match failure:
        case PromptRejected():
            return GiveUp(str(failure))
        case SpendCapReached():
            return Hold(str(failure))
        case KeyRejected():
            return SwapKey()
        case RateLimited():
            return _uncounted(policy.rate_limited, failure, tries, now=now, rng=rng)
        case Overloaded():
            return _uncounted(policy.overloaded, failure, tries, now=now, rng=rng)
        case ConnectionFailed(sent=False):
            # Nobody answers at all: not the prompt's fault, nothing paid, and it may last for minutes.
            return _uncounted(policy.overloaded, failure, tries, now=now, rng=rng)
        case ServerFailed() | ConnectionFailed():
            return _counted(policy, failure, tries, rng=rng)
        case _:
            return GiveUp(f"unknown failure: {failure}")


def _uncounted(
    backoff: Backoff, failure: ClaudeError, tries: Tries, *, now: datetime, rng: random.Random
) -> RetryDecision:
    after = backoff.delay(tries.total, at_least=failure.retry_after or 0.0, rng=rng)
    # A job with a deadline of its own expires by it; this horizon is for those without one.
    if tries.deadline is None and now + timedelta(seconds=after) >= tries.first_opened_at + UNCOUNTED_HORIZON:
        return GiveUp(f"no answer in {UNCOUNTED_HORIZON.days} days of trying, last: {failure}")
    return Retry(after, counted=False)


def _counted(policy: RetryPolicy, failure: ClaudeError, tries: Tries, *, rng: random.Random) -> RetryDecision:
    if tries.counted + 1 >= policy.max_counted:
        return GiveUp(f"failed {tries.counted + 1} times, last: {failure}")
    return Retry(
        policy.failed.delay(tries.counted, at_least=failure.retry_after or 0.0, rng=rng), counted=True
    )


AFTER_LOSS = Backoff(first=30, ceiling=600)
"""Seconds: apart enough that jobs which were in flight beside the one that ends processes are not so again."""


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
