"""How long texts are kept: each part by its own days, and what is looked for is what is deleted."""

from datetime import UTC, datetime, timedelta

from promptmill.retention import Retention
from promptmill.store.purging import Part

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
KEPT = Retention(prompts_days=1, answers_days=7.5)


def test_a_part_is_due_when_its_days_are_over_and_not_before() -> None:
    moment = timedelta(microseconds=1)
    assert KEPT.due(NOW - timedelta(days=1) + moment, NOW) == frozenset()
    assert KEPT.due(NOW - timedelta(days=1), NOW) == {Part.PROMPTS}
    assert KEPT.due(NOW - timedelta(days=7.5) + moment, NOW) == {Part.PROMPTS}
    assert KEPT.due(NOW - timedelta(days=7.5), NOW) == {Part.PROMPTS, Part.ANSWERS}


def test_what_is_looked_for_is_what_is_due() -> None:
    assert KEPT.moments(NOW).keys() == {Part.PROMPTS, Part.ANSWERS}
    for part, moment in KEPT.moments(NOW).items():
        assert part in KEPT.due(moment, NOW)


def test_without_days_everything_is_kept_for_ever_and_with_none_it_goes_at_once() -> None:
    assert Retention().is_for_ever
    assert Retention().due(datetime.min.replace(tzinfo=UTC), NOW) == frozenset()
    assert not Retention(everything_days=0).is_for_ever
    assert Retention(everything_days=0).due(NOW, NOW) == {Part.EVERYTHING}
