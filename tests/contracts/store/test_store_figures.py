"""`status` and the dispatcher's window are answered from kept counters and small indexes."""

from datetime import timedelta
from typing import Any

import pytest

from promptmill.errors import NotFound
from promptmill.states import BatchState, JobState
from promptmill.store import batches, control, stats
from promptmill.store.stats import Flow, GroupCount

GROUP = "claude-sonnet-5"


def _status(world: Any, made: Any) -> Any:
    with world.database.read() as conn:
        return stats.status(conn, made.id, world.now)


def test_jobs_are_counted_in_every_state(world: Any) -> None:
    made = world.batch(6)
    done, failed, deferred, _running = world.running(made, 4)
    world.complete(done)
    world.fail(failed)
    world.defer(deferred)
    world.dispatch(made, 1)
    assert _status(world, made).jobs == {
        JobState.PENDING: 2,
        JobState.QUEUED: 1,
        JobState.RUNNING: 1,
        JobState.SUBMITTED: 0,
        JobState.SUCCEEDED: 1,
        JobState.ERRORED: 1,
        JobState.CANCELED: 0,
        JobState.EXPIRED: 0,
    }


def test_failures_are_counted_by_kind(world: Any) -> None:
    made = world.batch(3)
    first, second, third = world.running(made)
    world.defer(first, second)
    world.fail(third)
    found = _status(world, made)
    assert found.failures == {"overloaded": 2, "prompt_rejected": 1}
    assert found.batch.attempts == 3


def test_what_rests_after_a_failure_is_counted_until_its_time_has_come(world: Any) -> None:
    made = world.batch(4)
    first, second, *_ = world.running(made)
    world.defer(first, after=20)
    until = world.tick(1) + timedelta(seconds=19)
    world.defer(second, after=60)

    def resting() -> Any:
        with world.database.read() as conn:
            return stats.resting(conn, made.id, world.now)

    assert resting() == stats.Resting(2, until)
    world.tick(30)
    assert resting().jobs == 1
    world.tick(60)
    assert resting() is None


def test_time_runs_from_the_first_attempt_to_the_end(world: Any) -> None:
    made = world.batch(1)
    world.tick(100)
    assert _status(world, made).elapsed_s == 0
    [lease] = world.running(made)
    world.tick(3)
    assert _status(world, made).elapsed_s == 3
    world.complete(lease)
    world.tick(50)
    assert _status(world, made).elapsed_s == 3
    assert _status(world, made).batch.state is BatchState.ENDED


def test_a_batch_that_is_still_read_shows_how_far_it_is(world: Any) -> None:
    found = _status(world, world.admitting(4))
    assert (found.batch.state, found.batch.total) == (BatchState.ADMITTING, 4)
    assert found.jobs[JobState.PENDING] == 4


def test_the_status_of_no_batch_is_not_found(world: Any) -> None:
    with pytest.raises(NotFound), world.database.read() as conn:
        stats.status(conn, "batch_none", world.now)


def test_the_window_counts_what_is_out_and_what_began_lately(world: Any) -> None:
    first, second = world.batch(5), world.batch(2)
    world.running(first, 2)
    world.tick(11)
    world.running(first, 1)
    world.running(second, 1)
    world.dispatch(first, 1)
    with world.database.read() as conn:
        assert stats.window_counts(conn, world.now) == {GROUP: GroupCount(queued=1, running=4, starts=2)}
    with world.database.begin() as conn:
        control.pause(conn, first.id, "lunch", world.now)
        assert stats.window_counts(conn, world.now)[GROUP].queued == 0


def test_a_quiet_store_has_an_empty_window(world: Any) -> None:
    with world.database.read() as conn:
        assert stats.window_counts(conn, world.now) == {}


def _flow(world: Any, made: Any) -> Flow:
    with world.database.read() as conn:
        return stats.flow(conn, stats.status(conn, made.id, world.now), world.now)


def test_how_fast_answers_come_is_told_by_the_last_minute(world: Any) -> None:
    made = world.batch(12)
    world.complete(*world.running(made, 2))
    world.tick(600)
    assert _flow(world, made) == Flow()

    _waiting, bad, *good = world.running(made, 8)
    world.complete(*good)
    world.fail(bad)
    assert _flow(world, made) == Flow(round(8 * 6 / 7), 60.0)


def test_of_many_answers_the_newest_tell_how_fast_they_come(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stats, "MOST_TRIES", 4)
    made, other = world.batch(12), world.batch(2)
    world.complete(*world.running(made, 6))
    world.tick(50)
    world.complete(*world.running(made, 2))
    world.complete(*world.running(other, 2))
    world.tick(2)
    assert _flow(world, made) == Flow(2, 2.0)
    assert _flow(world, world.batch(1)) == Flow()


def test_of_a_batch_that_has_just_begun_the_time_since_then_counts(world: Any) -> None:
    world.tick(100)
    made = world.batch(12)
    world.complete(*world.running(made, 6))
    world.tick(3)
    assert _flow(world, made) == Flow(6, 3.0)


def test_many_batches_are_asked_for_at_once_and_told_as_one_is(world: Any) -> None:
    first, second = world.batch(5), world.batch(3)
    world.running(first, 2)
    world.dispatch(second, 1)

    with world.database.read() as conn:
        rows = batches.unfinished(conn, 10)
        told = stats.statuses(conn, rows, world.now)
        standings = {(each.id, each.total, each.done) for each in stats.standings(conn)}
        assert [each.jobs for each in told] == [stats.status(conn, row.id, world.now).jobs for row in rows]
        newest = batches.unfinished(conn, 1)

    assert {row.id for row in rows} == {first.id, second.id}
    assert standings == {(first.id, 5, 0), (second.id, 3, 0)}
    assert [row.id for row in newest] == [rows[0].id]
