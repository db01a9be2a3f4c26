"""How fast a batch goes, as people are told."""

import pytest

from producers.pace import Pace


def test_the_pace_is_what_was_done_between_the_first_and_the_last_moment() -> None:
    pace = Pace()
    pace.note(100.0, done=10, tokens=1000)
    pace.note(105.0, done=60, tokens=6000)

    assert pace.answers_per_s == 10
    assert pace.tokens_per_s == 1000


def test_what_was_long_ago_does_not_count() -> None:
    pace = Pace()
    for second in range(120):
        pace.note(float(second), done=second * (100 if second < 60 else 0) or 6000, tokens=0)

    assert pace.answers_per_s == 0


@pytest.mark.parametrize("moments", [[], [(0.0, 5)], [(0.0, 5), (0.0, 9)]])
def test_without_two_moments_there_is_no_pace_and_no_time_left(moments: list[tuple[float, int]]) -> None:
    pace = Pace()
    for at, done in moments:
        pace.note(at, done=done, tokens=0)

    assert pace.answers_per_s == 0
    assert pace.seconds_for(7) is None


def test_the_time_left_is_the_rest_at_this_pace() -> None:
    pace = Pace()
    pace.note(0.0, done=0, tokens=0)
    pace.note(2.0, done=10, tokens=0)

    assert pace.seconds_for(50) == 10
    assert pace.seconds_for(0) == 0


def test_a_retry_of_ended_jobs_is_no_negative_pace() -> None:
    pace = Pace()
    pace.note(0.0, done=10, tokens=5)
    pace.note(1.0, done=4, tokens=5)

    assert pace.answers_per_s == 0
