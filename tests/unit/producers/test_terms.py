"""What people's words for times, weights, lanes and schemas mean."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from pydantic import BaseModel

from producers.terms import (
    budget_of,
    check_truncation,
    deadline_of,
    lane_of,
    priority_of,
    retried_by,
    schema_of,
    tags_of,
)
from promptmill.errors import InvalidInput
from promptmill.states import JobState, Lane

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("words", "moment"),
    [
        ("90m", NOW + timedelta(minutes=90)),
        ("24h", NOW + timedelta(hours=24)),
        ("1.5d", NOW + timedelta(hours=36)),
        ("30 s", NOW + timedelta(seconds=30)),
        ("2026-12-01T18:00Z", datetime(2026, 12, 1, 18, tzinfo=UTC)),
        ("2026-12-01T18:00", datetime(2026, 12, 1, 18, tzinfo=UTC)),
        (timedelta(hours=1), NOW + timedelta(hours=1)),
        (datetime(2027, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_deadline_is_a_duration_or_a_moment(words: str, moment: datetime) -> None:
    assert deadline_of(words, now=NOW) == moment


@pytest.mark.parametrize("words", ["soon", "24", "-1h", "2020-01-01", ""])
def test_another_deadline_names_the_option(words: str) -> None:
    with pytest.raises(InvalidInput) as fault:
        deadline_of(words, now=NOW)

    assert fault.value.field == "deadline"


@pytest.mark.parametrize(
    ("words", "weight"), [("high", 10), ("normal", 1), ("low", 0.1), ("2.5", 2.5), (3, 3), ("HIGH", 10)]
)
def test_a_priority_is_a_word_or_a_weight(words: str, weight: float) -> None:
    assert priority_of(words) == weight


@pytest.mark.parametrize("words", ["urgent", "0", "-1", "inf", "nan"])
def test_another_priority_is_refused(words: str) -> None:
    with pytest.raises(InvalidInput):
        priority_of(words)


def test_auto_is_the_realtime_lane() -> None:
    assert lane_of("auto") is lane_of("realtime") is Lane.REALTIME


@pytest.mark.parametrize("words", ["bulk", "fast"])
def test_a_lane_that_is_not_there_is_refused(words: str) -> None:
    with pytest.raises(InvalidInput):
        lane_of(words)


def test_a_pydantic_model_is_its_json_schema() -> None:
    class Label(BaseModel):
        sure: bool

    assert schema_of(Label) == Label.model_json_schema()
    assert schema_of({"type": "object"}) == {"type": "object"}
    with pytest.raises(InvalidInput):
        schema_of("Label")


def test_tags_are_pairs() -> None:
    assert tags_of(["team=x", "note=a=b"]) == {"team": "x", "note": "a=b"}
    with pytest.raises(InvalidInput):
        tags_of(["team"])


@pytest.mark.parametrize(
    ("amount", "nanos"),
    [
        (50, 50_000_000_000),
        ("$0.25", 250_000_000),
        (0.1, 100_000_000),
        (0.1 + 0.2, 300_000_000),
        (Decimal("0.000000001"), 1),
        ("9000000000", 9 * 10**18),
    ],
)
def test_a_budget_is_an_exact_amount_in_dollars(amount: str | float | Decimal, nanos: int) -> None:
    assert budget_of(amount) == nanos


@pytest.mark.parametrize("amount", ["none", "nan", "inf", "-1", 0, "1,50", "1e-10", "1e30", "50 EUR", True])
def test_what_is_no_amount_is_no_budget(amount: str | float) -> None:
    with pytest.raises(InvalidInput, match="no amount in dollars"):
        budget_of(amount)


def test_a_deadline_beyond_the_calendar_is_a_fault_of_input() -> None:
    with pytest.raises(InvalidInput, match="calendar"):
        deadline_of("99999999999d", now=NOW)


def test_what_failed_is_retried_where_nothing_is_said() -> None:
    assert retried_by(None) == ((JobState.ERRORED, JobState.EXPIRED), frozenset())
    assert retried_by("canceled").states == (JobState.CANCELED,)
    assert retried_by(["canceled", "errored"]).states == (JobState.ERRORED, JobState.CANCELED)


def test_a_kind_of_error_names_the_jobs_that_errored_of_it() -> None:
    assert retried_by("server_failed") == ((), {"server_failed"})
    assert retried_by(["lost", "expired"]) == ((JobState.EXPIRED,), {"lost"})
    assert retried_by(["lost", "errored"]) == ((JobState.ERRORED,), frozenset())
    assert str(retried_by(["lost", "expired"])) == "expired or errored with lost"


@pytest.mark.parametrize(
    ("name", "why"), [("succeeded", "paid for twice"), ("running", "none of errored, expired, canceled")]
)
def test_what_succeeded_or_has_not_ended_is_not_retried(name: str, why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        retried_by(name)


@pytest.mark.parametrize(
    ("cap", "max_tokens", "why"),
    [
        (1000, 1000, "not above the 1,000"),
        (4096, None, "not above the 4,096 of max_tokens, which holds where none is named"),
        (10**7, None, "above the .* of claude-haiku-5-5"),
    ],
)
def test_a_cap_that_nothing_can_grow_to_is_refused(cap: int, max_tokens: int | None, why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        check_truncation(cap, max_tokens=max_tokens, model="claude-haiku-5-5")
    check_truncation(2000, max_tokens=1000, model="claude-haiku-5-5")
