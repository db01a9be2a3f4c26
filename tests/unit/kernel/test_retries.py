"""What follows a failure: the table of design section 5."""

import random
from datetime import UTC, datetime, timedelta

import pytest

from promptmill import errors
from promptmill.retries import GiveUp, Hold, Retry, RetryPolicy, SwapKey, Tries, decide

NOW = datetime(2026, 11, 22, tzinfo=UTC)


def decided(
    failure: errors.ClaudeError, *, counted: int = 0, total: int = 0, age: timedelta = timedelta()
) -> object:
    tries = Tries(counted=counted, total=total, first_opened_at=NOW - age)
    return decide(failure, tries, RetryPolicy(), now=NOW, rng=random.Random(7))


@pytest.mark.parametrize(
    ("failure", "decision"),
    [
        (errors.PromptRejected("bad", status=400), GiveUp),
        (errors.KeyRejected("no", status=401), SwapKey),
        (errors.SpendCapReached("cap", status=429), Hold),
        (errors.RateLimited("slow", status=429), Retry),
        (errors.Overloaded("busy", status=529), Retry),
        (errors.ServerFailed("oops", status=500), Retry),
        (errors.ConnectionFailed("cut"), Retry),
    ],
)
def test_each_kind_of_failure_has_its_decision(failure: errors.ClaudeError, decision: type) -> None:
    assert isinstance(decided(failure), decision)


@pytest.mark.parametrize(
    "failure",
    [
        errors.RateLimited("slow"),
        errors.Overloaded("busy"),
        errors.ConnectionFailed("refused", sent=False),
    ],
)
def test_what_is_not_the_prompts_fault_is_not_counted(failure: errors.ClaudeError) -> None:
    decision = decided(failure, total=1000)
    assert isinstance(decision, Retry)
    assert not decision.counted


@pytest.mark.parametrize("wait", [1.0, 60.0, 3600.0])
def test_retry_after_is_a_minimum_and_is_never_shortened(wait: float) -> None:
    for failure in (
        errors.RateLimited("slow", retry_after=wait),
        errors.Overloaded("busy", retry_after=wait),
    ):
        decision = decided(failure)
        assert isinstance(decision, Retry)
        assert decision.after >= wait


def test_a_counted_failure_gives_up_after_the_policys_tries() -> None:
    assert isinstance(decided(errors.ServerFailed("oops"), counted=4), Retry)
    assert isinstance(decided(errors.ServerFailed("oops"), counted=5), GiveUp)


def test_uncounted_retries_end_after_seven_days() -> None:
    assert isinstance(decided(errors.Overloaded("busy"), age=timedelta(days=8)), GiveUp)


def test_backoff_grows_and_is_spread_over_its_whole_span() -> None:
    rng = random.Random(1)
    backoff = RetryPolicy().overloaded
    late = [backoff.delay(5, at_least=0, rng=rng) for _ in range(400)]
    assert min(late) < 8
    assert 56 < max(late) <= 64
    assert max(backoff.delay(50, at_least=0, rng=rng) for _ in range(200)) <= 120
