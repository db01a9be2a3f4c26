"""An outage is met by every job again and again: none may fail because of it."""

import random
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from promptmill import errors
from promptmill.retries import GiveUp, Retry, RetryPolicy, Tries, decide, outcome_of

BEGUN = datetime(2026, 11, 22, tzinfo=UTC)
RESET = errors.ConnectionFailed("reset")
ERROR = errors.ServerFailed("oops", status=500)
CUT = errors.ConnectionFailed("cut", status=200)


def try_until(end: timedelta, failure: errors.ClaudeError, rng: random.Random) -> tuple[bool, int]:
    """Whether a job that fails so until `end` is still tried then, and its tries."""
    now, failures, first = BEGUN, Counter[str](), dict[str, datetime]()
    while now - BEGUN < end:
        tries = Tries(BEGUN, failures, None, first, failures if failure is CUT else {})
        decision = decide(failure, tries, RetryPolicy(), now=now, rng=rng)
        failures[outcome_of(failure)] += 1
        first.setdefault(outcome_of(failure), now)
        if isinstance(decision, GiveUp):
            return False, failures.total()
        assert isinstance(decision, Retry)
        now += timedelta(seconds=decision.after)
    return True, failures.total()


@pytest.mark.parametrize("failure", [RESET, ERROR], ids=["resets", "errors"])
def test_no_job_fails_in_an_outage_of_two_minutes(failure: errors.ClaudeError) -> None:
    rng = random.Random(1)
    assert all(try_until(timedelta(seconds=120), failure, rng)[0] for _ in range(500))


@pytest.mark.parametrize("failure", [RESET, ERROR], ids=["resets", "errors"])
def test_what_fails_for_longer_ends_and_was_not_tried_without_measure(failure: errors.ClaudeError) -> None:
    rng = random.Random(1)
    ends = [try_until(timedelta(hours=1), failure, rng) for _ in range(500)]
    assert not any(alive for alive, _ in ends)
    assert sum(tries for _, tries in ends) / len(ends) < 12


def test_an_answer_that_began_and_broke_off_is_only_counted() -> None:
    assert try_until(timedelta(hours=1), CUT, random.Random(1)) == (False, RetryPolicy().max_counted)


def test_a_job_that_came_through_an_outage_does_not_end_at_its_first_cut_answer() -> None:
    now = BEGUN + timedelta(seconds=40)
    tries = Tries(
        BEGUN, {"connection_failed": 8}, None, {"connection_failed": BEGUN}, {"connection_failed": 0}
    )
    assert isinstance(decide(CUT, tries, RetryPolicy(), now=now, rng=random.Random(1)), Retry)
