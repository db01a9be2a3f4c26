"""Figures over all batches come from kept counters, and are those of the batches."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from promptmill.recurrence import Due, Missed, Overlap, ScheduleState, Timetable
from promptmill.states import JobState
from promptmill.store import schedule_runs, schedules, totals

GROUP = "claude-sonnet-5"


def _totals(world: Any) -> totals.Totals:
    with world.database.read() as conn:
        return totals.totals(conn)


def test_an_empty_database_has_no_models_and_no_jobs(world: Any) -> None:
    found = _totals(world)

    assert found.models == ()
    assert set(found.jobs.values()) == {0}


def test_jobs_of_all_batches_are_counted_in_every_state(world: Any) -> None:
    world.batch(2)
    made = world.batch(6)
    done, failed, *_ = world.running(made, 4)
    world.complete(done)
    world.fail(failed)
    world.dispatch(made, 1)

    jobs = _totals(world).jobs

    assert {state.value: number for state, number in jobs.items() if number} == {
        "pending": 3,
        "queued": 1,
        "running": 2,
        "succeeded": 1,
        "errored": 1,
    }


def test_sums_are_told_apart_by_model_and_whether_simulated(world: Any) -> None:
    world.complete(*world.running(world.batch(2)))
    world.complete(*world.running(world.batch(1, simulated=False)))

    rehearsed, real = sorted(_totals(world).models, key=lambda each: not each.simulated)

    assert (rehearsed.simulated, rehearsed.attempts, rehearsed.cost_nanos) == (True, 2, 1_200_000)
    assert (real.simulated, real.attempts, real.input_tokens, real.cache_read_tokens) == (False, 1, 100, 7)


def test_failed_attempts_are_counted_by_outcome_over_all_batches(world: Any) -> None:
    for _ in range(2):
        first, second = world.running(world.batch(2))
        world.defer(first)
        world.fail(second)

    assert _totals(world).failed_attempts == {"overloaded": 2, "prompt_rejected": 2}


def test_batches_that_are_served_are_told_the_newest_first(world: Any) -> None:
    first = world.batch(1)
    world.tick(1)
    second = world.batch(3)
    world.complete(world.running(second, 2)[0])
    world.tick(1)
    world.complete(*world.running(world.batch(1)))

    with world.database.read() as conn:
        newest, oldest = totals.served(conn)
    assert (newest.name, oldest.name, newest.cost_nanos) == (second.name, first.name, 600_000)
    assert {state.value: number for state, number in newest.jobs.items() if number} == {
        "pending": 1,
        "running": 1,
        "succeeded": 1,
    }
    assert _totals(world).batches == {"active": 2, "ended": 1}
    assert _totals(world).jobs[JobState.SUCCEEDED] == 2


def test_the_latest_calls_are_told_by_how_long_they_took(world: Any) -> None:
    first, second, *_ = world.running(world.batch(4))
    world.tick(5)
    world.complete(second)
    world.tick(2)
    world.complete(first)

    with world.database.read() as conn:
        assert totals.latest_calls(conn, world.now) == {GROUP: [5.0, 7.0]}
        assert totals.latest_calls(conn, world.tick(700)) == {}


def test_calls_in_flight_do_not_push_aside_those_that_ended_before_them(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(totals, "_LATEST", totals._LATEST.limit(2))
    slow, *_ = world.running(world.batch(1))
    world.tick(60)
    world.running(world.batch(3))
    quick, *_ = world.running(world.batch(1))
    world.tick(1)
    world.complete(quick)
    world.complete(slow)

    with world.database.read() as conn:
        assert totals.latest_calls(conn, world.now) == {GROUP: [1.0, 61.0]}


def test_schedules_tell_their_next_and_last_due_time_and_none_while_paused(world: Any) -> None:
    now = world.now
    with world.database.begin() as conn:
        nightly = schedules.add(conn, a_schedule("nightly", now), now)
        idle = schedules.add(conn, a_schedule("idle", now), now)
        # As a person's pause does it: the row keeps when it would be due.
        schedules.set_state(conn, idle.id, ScheduleState.PAUSED, now + timedelta(days=1), now)
        for days in (2, 1):
            schedule_runs.record(conn, nightly.id, Due(now - timedelta(days=days)), now)

    with world.database.read() as conn:
        assert totals.schedules(conn) == [
            totals.ScheduleTimes("idle", None, None, None),
            totals.ScheduleTimes("nightly", now, now - timedelta(days=1), "waiting"),
        ]


def a_schedule(name: str, due: datetime) -> schedules.NewSchedule:
    return schedules.NewSchedule(
        name=name,
        timetable=Timetable(every_s=86_400, starts_at=due),
        missed=Missed.LATEST,
        overlap=Overlap.ALLOW,
        endpoint="simulated",
        simulated=True,
        next_due=due,
        what={},
    )
