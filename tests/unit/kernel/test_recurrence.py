"""Due times: of cron expressions in their zones, of intervals, and of what was missed."""

import random
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise, takewhile
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from promptmill.errors import InvalidInput
from promptmill.recurrence import GRACE, MOST_AT_ONCE, Missed, Timetable, owed

START = datetime(2026, 3, 1, tzinfo=UTC)


def cron(expression: str, zone: str = "UTC") -> Timetable:
    return Timetable(cron=expression, timezone=zone, starts_at=START)


def every(seconds: int) -> Timetable:
    return Timetable(every_s=seconds, starts_at=START)


def local(timetable: Timetable, after: str, count: int) -> list[str]:
    """The due times after a moment in UTC, as a clock on the wall shows them."""
    dues = islice(timetable.following(datetime.fromisoformat(after)), count)
    return [due.astimezone(timetable.zone).strftime("%d %H:%M%z") for due in dues]


def test_two_at_night_in_shanghai_is_six_in_the_evening_before_in_utc() -> None:
    due = cron("0 2 * * *", "Asia/Shanghai").after(START)

    assert due == datetime(2026, 3, 1, 18, tzinfo=UTC)


def test_a_time_that_the_clocks_jump_over_is_due_when_they_have_jumped() -> None:
    assert local(cron("30 2 * * *", "Europe/Berlin"), "2026-03-28T00:00Z", 3) == [
        "28 02:30+0100", "29 03:00+0200", "30 02:30+0200",
    ]  # fmt: skip


def test_a_time_that_comes_twice_is_due_once() -> None:
    assert local(cron("30 2 * * *", "Europe/Berlin"), "2026-10-24T01:00Z", 2) == [
        "25 02:30+0200", "26 02:30+0100",
    ]  # fmt: skip


def test_of_every_half_hour_those_of_an_hour_that_comes_twice_are_all_due() -> None:
    assert local(cron("*/30 * * * *", "Europe/Berlin"), "2026-10-24T23:50Z", 5) == [
        "25 02:00+0200", "25 02:30+0200", "25 02:00+0100", "25 02:30+0100", "25 03:00+0100",
    ]  # fmt: skip


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
@pytest.mark.parametrize(
    "expression", ["*/30 * * * *", "30 2 * * *", "0 */6 * * 1-5", "*/7 * * * * *", "15 1,2,3 L * *"]
)
def test_the_latest_due_time_is_found_backwards_as_forwards(expression: str, zone: str) -> None:
    timetable = cron(expression, zone)

    for earlier, later in pairwise(islice(timetable.following(datetime(2026, 10, 24, 20, tzinfo=UTC)), 40)):
        between = earlier + (later - earlier) / 2
        assert timetable.latest(earlier) == timetable.latest(between) == earlier
        assert timetable.after(earlier) == timetable.after(between) == later


def test_an_interval_counts_from_its_start_whenever_one_looks() -> None:
    timetable = every(900)

    assert timetable.after(START) == START + timedelta(minutes=15)
    assert timetable.after(START + timedelta(minutes=52)) == START + timedelta(hours=1)
    assert timetable.after(START - timedelta(days=3)) == START + timedelta(minutes=15)
    assert timetable.latest(START + timedelta(minutes=14)) is None
    assert timetable.latest(START + timedelta(minutes=52)) == START + timedelta(minutes=45)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"cron": "0 2 * *"}, "cron"),
        ({"cron": "61 2 * * *"}, "cron"),
        ({"cron": "0 0 30 2 *"}, "cron"),
        ({"cron": "0 2 * * *", "timezone": "Mars/Base"}, "timezone"),
        ({"cron": "0 2 * * *", "timezone": "../passwd"}, "timezone"),
        ({"every_s": 0}, "every"),
        ({}, "cron"),
        ({"cron": "0 2 * * *", "every_s": 60}, "cron"),
    ],
)
def test_a_timetable_that_means_nothing_is_refused(wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        Timetable(starts_at=START, **wrong)

    assert refused.value.field == field


def test_nothing_is_owed_before_the_next_due_time() -> None:
    next_due = START + timedelta(seconds=10)

    found = owed(every(10), next_due, START + timedelta(seconds=9), Missed.ALL)

    assert (found.due, found.next_due) == ((), next_due)


def test_at_a_due_time_that_one_is_owed_whatever_the_policy() -> None:
    due = START + timedelta(seconds=10)

    for missed in Missed:
        found = owed(every(10), due, due, missed)
        assert [(each.at, each.skipped, each.note) for each in found.due] == [(due, None, None)]
        assert found.next_due == START + timedelta(seconds=20)


def test_of_several_that_were_missed_the_latest_is_run_and_the_others_are_told() -> None:
    found = owed(every(10), START + timedelta(seconds=10), START + timedelta(seconds=47), Missed.LATEST)

    [due] = found.due
    assert due.at == START + timedelta(seconds=40)
    assert due.note == "3 earlier due times were missed (--missed latest)"
    assert found.next_due == START + timedelta(seconds=50)


def test_all_that_were_missed_are_run_a_hundred_at_a_time() -> None:
    next_due, now, seen = START + timedelta(seconds=10), START + timedelta(seconds=2_505), []

    while (found := owed(every(10), next_due, now, Missed.ALL)).due:
        assert len(found.due) <= MOST_AT_ONCE
        seen += [due.at for due in found.due]
        assert found.next_due is not None
        next_due = found.next_due

    assert seen == [START + timedelta(seconds=10 * n) for n in range(1, 251)]


def test_one_that_is_long_over_is_skipped_where_that_was_asked_for() -> None:
    due = START + timedelta(hours=1)
    soon, late = due + GRACE, due + GRACE + timedelta(seconds=1)

    assert owed(every(3600), due, soon, Missed.SKIP).due[0].skipped is None
    found = owed(every(3600), due, late, Missed.SKIP)
    assert found.due[0].skipped == "1 due time was missed: nothing was there to act"
    assert found.next_due == START + timedelta(hours=2)


def test_a_year_of_missed_minutes_is_looked_at_in_no_time() -> None:
    [due] = owed(cron("* * * * *"), START, START + timedelta(days=365), Missed.LATEST).due

    assert due.at == START + timedelta(days=365)
    assert due.note is not None
    assert due.note.startswith("more than 1,000 earlier due times")


def moments_of_change(zone: str) -> list[datetime]:
    """When the clocks of a zone change in 2026, to the hour."""
    hours = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=n) for n in range(365 * 24)]
    offsets = [hour.astimezone(ZoneInfo(zone)).utcoffset() for hour in hours]
    return [hour for hour, (was, now) in zip(hours, pairwise(offsets), strict=False) if was != now]


@pytest.mark.parametrize(
    "zone",
    [
        "Europe/Berlin", "Europe/London", "America/New_York", "America/Havana", "America/Santiago",
        "Australia/Lord_Howe", "Asia/Beirut", "Africa/Casablanca",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "expression",
    [
        "30 2 * * *",
        "*/30 * * * *",
        "1 1,2,3 * * *",
        "45 23 * * *",
        "30 0 * * *",
        "0 */2 * * *",
        "0 */30 1 * * *",
    ],
)
def test_where_clocks_change_the_due_times_are_the_same_whenever_one_looks(
    expression: str, zone: str
) -> None:
    timetable, rng = cron(expression, zone), random.Random(5)

    for change in moments_of_change(zone):
        end = change + timedelta(hours=30)
        dues = list(takewhile(end.__ge__, timetable.following(change - timedelta(hours=30))))
        assert all(earlier < later for earlier, later in pairwise(dues))
        for _ in range(8):
            moment = change + timedelta(seconds=rng.uniform(-3 * 3600, 3 * 3600))
            assert timetable.after(moment) == next(due for due in dues if due > moment)
            assert timetable.latest(moment) == max(due for due in dues if due <= moment)
