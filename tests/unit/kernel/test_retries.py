"""What follows a failure: the table of design section 5."""

import random
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptmill import errors
from promptmill.retries import (
    LEAST_REST,
    GiveUp,
    Hold,
    Retry,
    RetryPolicy,
    SwapKey,
    Tries,
    asks_again,
    ceiling,
    decide,
    outcome_of,
    truncation_policy,
)

NOW = datetime(2026, 11, 22, tzinfo=UTC)


RETRIED = [
    errors.RateLimited("slow", status=429),
    errors.Overloaded("busy", status=529),
    errors.ServerFailed("oops", status=500),
    errors.ConnectionFailed("cut"),
    errors.ConnectionFailed("refused", sent=False),
]


def decided(
    failure: errors.ClaudeError,
    *,
    age: timedelta = timedelta(),
    deadline: datetime | None = None,
    **failures: int,
) -> object:
    tries = Tries(NOW - age, failures, deadline)
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
    decision = decided(failure, rate_limited=400, overloaded=300, unreachable=300, lost=3, interrupted=9)
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


def test_who_was_told_the_same_retry_after_does_not_return_at_the_same_moment() -> None:
    rng = random.Random(7)
    for backoff in (RetryPolicy().rate_limited, RetryPolicy().overloaded):
        waits = {backoff.delay(0, at_least=60, rng=rng) for _ in range(20)}
        assert len(waits) == 20
        assert min(waits) >= 60 + backoff.least


def test_a_counted_failure_gives_up_after_the_policys_tries() -> None:
    cut = errors.ConnectionFailed("cut", status=200)
    first = {"connection_failed": NOW - timedelta(minutes=5)}

    def after(times: int, failure: errors.ClaudeError, begun: int) -> object:
        counts = {"connection_failed": times}
        tries = Tries(NOW, counts, None, first, {"connection_failed": begun})
        return decide(failure, tries, RetryPolicy(), now=NOW, rng=random.Random(7))

    for failure, begun in ((cut, True), (errors.ServerFailed("oops", status=500), False)):
        assert isinstance(after(4, failure, 4 * begun), Retry)
        assert isinstance(after(5, failure, 5 * begun), GiveUp)


@pytest.mark.parametrize("kind", ["rate_limited", "overloaded", "unreachable", "key_rejected", "truncated"])
def test_what_others_are_to_blame_for_is_not_laid_to_a_counted_failure(kind: str) -> None:
    decision = decided(errors.ServerFailed("oops"), **{kind: 1000})
    assert isinstance(decision, Retry)
    assert decision.after <= 1  # as patient as at its first failure


def test_an_outage_is_kept_under_another_word_than_a_cut_answer() -> None:
    assert outcome_of(errors.ConnectionFailed("refused", sent=False)) == "unreachable"
    assert outcome_of(errors.ConnectionFailed("cut")) == "connection_failed"


@pytest.mark.parametrize("failure", RETRIED)
def test_without_a_deadline_trying_ends_after_seven_days(failure: errors.ClaudeError) -> None:
    old = timedelta(days=8)
    assert isinstance(decided(failure, age=old), GiveUp)
    assert isinstance(decided(failure, age=old, deadline=NOW + timedelta(days=1)), Retry)


@pytest.mark.parametrize("wait", [0.0, -5.0, 1e9])
def test_a_strange_retry_after_breaks_nothing(wait: float) -> None:
    deadline = NOW + timedelta(days=1)
    decision = decided(errors.Overloaded("busy", retry_after=wait), deadline=deadline)
    assert isinstance(decision, Retry)
    assert decision.after >= max(wait, RetryPolicy().overloaded.least)


def test_a_spend_cap_holds_the_account_until_its_limit_lifts() -> None:
    lifts = datetime(2026, 12, 1, tzinfo=UTC)
    decision = decided(errors.SpendCapReached("cap", lifts_at=lifts))
    assert isinstance(decision, Hold)
    assert decision.until == lifts
    assert decided(errors.SpendCapReached("cap")) == Hold("cap", None)


def test_a_limit_that_should_have_lifted_is_not_asked_again_at_once() -> None:
    assert decided(errors.SpendCapReached("cap", lifts_at=NOW)) == Hold("cap", NOW + LEAST_REST)


FAILURES = st.one_of(
    st.sampled_from(RETRIED),
    st.builds(errors.RateLimited, st.just("slow"), retry_after=st.floats(0, 1e6)),
    st.builds(errors.Overloaded, st.just("busy"), retry_after=st.floats(0, 1e6)),
)


@given(failures=st.lists(FAILURES, min_size=1, max_size=60), seed=st.integers())
def test_nothing_is_ever_retried_in_a_tight_loop(failures: list[errors.ClaudeError], seed: int) -> None:
    """Whatever fails how often in whatever order: each wait has its least, and a run of one kind slows down."""
    policy, rng, now, past = RetryPolicy(max_counted=1000), random.Random(seed), NOW, Counter[str]()
    for failure in failures:
        tries = Tries(NOW, past, deadline=NOW + timedelta(days=10_000))
        decision = decide(failure, tries, policy, now=now, rng=rng)
        assert isinstance(decision, Retry)
        assert decision.after >= max(0.05, failure.retry_after or 0.0)
        assert decision.after <= 120 + (failure.retry_after or 0.0)
        now += timedelta(seconds=decision.after)
        past[outcome_of(failure)] += 1
    assert (now - NOW).total_seconds() >= 0.05 * len(failures)


@pytest.mark.parametrize("failure", RETRIED)
def test_a_hundred_failures_of_a_kind_take_minutes_at_least(failure: errors.ClaudeError) -> None:
    for seed in range(20):
        policy, rng, waited = RetryPolicy(max_counted=1000), random.Random(seed), 0.0
        for times in range(100):
            tries = Tries(NOW, {outcome_of(failure): times}, NOW + timedelta(days=10_000))
            decision = decide(failure, tries, policy, now=NOW, rng=rng)
            assert isinstance(decision, Retry)
            waited += decision.after
        assert waited > 150


def test_backoff_grows_and_is_spread_over_its_whole_span() -> None:
    rng = random.Random(1)
    backoff = RetryPolicy().overloaded
    late = [backoff.delay(5, at_least=0, rng=rng) for _ in range(400)]
    assert min(late) < 8
    assert 56 < max(late) <= 64
    assert max(backoff.delay(50, at_least=0, rng=rng) for _ in range(200)) <= 120


def test_an_answer_that_was_cut_off_gets_twice_the_room_up_to_the_cap() -> None:
    options = truncation_policy(5000)
    ceilings = [ceiling(1000, options, {"truncated": times, "overloaded": 7}) for times in range(5)]
    assert ceilings == [1000, 2000, 4000, 5000, 5000]
    assert [asks_again("max_tokens", each, options) for each in ceilings] == [True, True, True, False, False]
    assert not asks_again("end_turn", 1000, options)


def test_without_a_cap_what_was_cut_off_is_kept() -> None:
    options = truncation_policy(None)
    assert options == {}
    assert ceiling(1000, options, {}) == 1000
    assert not asks_again("max_tokens", 1000, options)


def test_a_prompt_with_more_room_than_the_cap_keeps_its_own() -> None:
    assert ceiling(9000, truncation_policy(5000), {"truncated": 3}) == 9000
    assert not asks_again("max_tokens", 9000, truncation_policy(5000))
