"""Only the newest token writes an outcome; what a late writer spent is recorded all the same."""

from typing import Any

from sqlalchemy import select

from promptmill.states import BatchState, JobState
from promptmill.store import batches, jobs, ledger
from promptmill.store.tables import reply


def _reaped(world: Any, made: Any) -> Any:
    """A lease whose worker fell silent and lost the job."""
    [lease] = world.running(made, 1, worker="frozen")
    world.tick(60)
    assert world.reap() == [lease.job_id]
    return lease


def _outcomes(world: Any, made: Any) -> list[str]:
    with world.database.read() as conn:
        return [each.outcome for each in ledger.attempts_of(conn, batch_id=made.id)]


def test_a_second_completion_is_refused_and_costs_nothing(world: Any) -> None:
    made = world.batch(2)
    [lease] = world.running(made, 1)
    assert world.complete(lease) == {lease.job_id}
    before = world.row(made)
    assert world.complete(lease) == set()
    assert world.fail(lease) == set()
    assert world.defer(lease) == set()
    assert world.row(made) == before
    world.assert_adds_up(made)


def test_the_same_completion_twice_in_one_group_counts_once(world: Any) -> None:
    made = world.batch(2)
    [lease] = world.running(made, 1)
    assert world.complete(lease, lease) == {lease.job_id}
    assert world.row(made).succeeded == 1
    world.assert_adds_up(made)


def test_a_late_answer_is_taken_when_nobody_was_granted_the_job_since(world: Any) -> None:
    made = world.batch(1)
    late = _reaped(world, made)
    assert _outcomes(world, made) == [ledger.LOST]
    assert world.complete(late) == {late.job_id}
    assert _outcomes(world, made) == ["succeeded"]
    assert world.row(made).state is BatchState.ENDED
    world.assert_adds_up(made)


def test_a_late_answer_is_taken_from_a_job_that_is_queued_again(world: Any) -> None:
    made = world.batch(1)
    late = _reaped(world, made)
    again = world.dispatch(made)
    assert world.complete(late) == {late.job_id}
    assert world.begin(again) == []
    world.assert_adds_up(made)


def test_a_late_writer_with_an_old_token_changes_nothing_but_its_attempt(world: Any) -> None:
    made = world.batch(1)
    late = _reaped(world, made)
    [new] = world.running(made, worker="awake")
    assert world.complete(late) == set()
    assert world.fail(late) == set()
    assert world.defer(late) == set()
    assert set(world.states(made).values()) == {JobState.RUNNING}
    assert _outcomes(world, made) == ["succeeded", ledger.OPEN]
    assert world.row(made).cost_nanos == 600_000
    world.assert_adds_up(made)
    assert world.complete(new) == {new.job_id}
    assert world.row(made).cost_nanos == 1_200_000
    world.assert_adds_up(made)


def test_old_and_new_writer_in_one_group_leave_the_answer_of_the_new_one(world: Any) -> None:
    made = world.batch(1)
    late = _reaped(world, made)
    [new] = world.running(made, worker="awake")
    both = [world.completion(late, "old"), world.completion(new, "new")]
    with world.database.begin() as conn:
        assert jobs.complete(conn, both, world.now) == {new.job_id}
        assert conn.scalars(select(reply.c.text)).all() == ["new"]
    assert world.row(made).succeeded == 1
    world.assert_adds_up(made)


def test_a_late_writer_adds_its_cost_to_a_batch_that_has_ended(world: Any) -> None:
    made = world.batch(1)
    late = _reaped(world, made)
    [new] = world.running(made, worker="awake")
    world.complete(new)
    ended = world.row(made)
    assert ended.unpriced_attempts == 1
    world.tick(5)
    assert world.complete(late) == set()
    after = world.row(made)
    assert (after.cost_nanos, after.unpriced_attempts) == (1_200_000, 0)
    assert (after.ended_at, after.succeeded) == (ended.ended_at, 1)
    world.assert_adds_up(made)


def test_a_late_failure_of_a_reaped_job_records_its_attempt(world: Any) -> None:
    made = world.batch(1)
    late = _reaped(world, made)
    assert world.defer(late) == set()
    assert _outcomes(world, made) == ["overloaded"]
    assert set(world.states(made).values()) == {JobState.PENDING}
    world.assert_adds_up(made)


def test_an_answer_to_a_job_that_was_canceled_meanwhile_is_only_recorded(world: Any) -> None:
    made = world.batch(1)
    late = _reaped(world, made)
    with world.database.begin() as conn:
        batches.cancel(conn, made.id, world.now)
    assert world.complete(late) == set()
    assert set(world.states(made).values()) == {JobState.CANCELED}
    assert world.row(made).cost_nanos == 600_000
    world.assert_adds_up(made)
