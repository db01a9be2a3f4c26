"""Only the newest token writes an outcome; what a late writer spent is recorded all the same."""

from typing import Any

import pytest
from sqlalchemy import select

from promptmill.retries import GiveUp
from promptmill.states import BatchState, JobState
from promptmill.store import control, jobs, ledger, retrying, workers
from promptmill.store.tables import job, reply


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
        control.cancel(conn, made.id, world.now)
    assert world.complete(late) == set()
    assert set(world.states(made).values()) == {JobState.CANCELED}
    assert world.row(made).cost_nanos == 600_000
    world.assert_adds_up(made)


def _errored_as_lost(world: Any, made: Any) -> Any:
    """A lease whose worker fell silent; the job was given up because of it."""
    lease = world.running(made, 1, worker="frozen")[0]
    world.tick(60)
    with world.database.begin() as conn:
        assert workers.reap(conn, world.now, after_loss=lambda _losses: GiveUp("lost too often"))
    assert world.states(made)["row-0"] is JobState.ERRORED
    return lease


def _retried(world: Any, made: Any) -> None:
    states = [JobState.ERRORED]
    with world.database.begin() as conn:
        page = retrying.page_to_retry(conn, made.id, states)
        assert page is not None
        assert retrying.retry(conn, made.id, page.ids, states, world.now) == 1


def test_a_late_failure_from_before_a_retry_does_not_end_the_job_again(world: Any) -> None:
    made = world.batch(1)
    late = _errored_as_lost(world, made)
    _retried(world, made)
    assert world.fail(late) == set()
    assert set(world.states(made).values()) == {JobState.PENDING}
    assert _outcomes(world, made) == ["prompt_rejected"]
    world.assert_adds_up(made)
    [queued] = world.dispatch(made)
    assert world.fail(late) == set()
    [again] = world.begin([queued], "frozen")
    assert world.fail(again) == {again.job_id}
    world.assert_adds_up(made)


def test_a_late_failure_of_a_reaped_job_that_nobody_retried_ends_it(world: Any) -> None:
    made = world.batch(1)
    assert world.fail(_reaped(world, made))
    assert set(world.states(made).values()) == {JobState.ERRORED}
    world.assert_adds_up(made)


@pytest.mark.parametrize("jobs_", [1, 2])
def test_a_late_answer_to_a_job_given_up_as_lost_is_taken(world: Any, jobs_: int) -> None:
    made = world.batch(jobs_)
    late = _errored_as_lost(world, made)
    before = world.row(made)
    assert (before.errored, before.state is BatchState.ENDED) == (1, jobs_ == 1)
    world.tick(5)
    assert world.complete(late) == {late.job_id}
    after = world.row(made)
    assert (after.errored, after.succeeded) == (0, 1)
    assert (after.state, after.ended_at) == (before.state, before.ended_at)
    with world.database.read() as conn:
        assert conn.scalars(select(reply.c.text)).all() == ["42"]
        assert conn.scalar(select(job.c.error_kind).where(job.c.id == late.job_id)) is None
    world.assert_adds_up(made)
    assert world.complete(late) == set()
    world.assert_adds_up(made)


def test_a_late_answer_to_a_job_that_failed_otherwise_is_only_recorded(world: Any) -> None:
    made = world.batch(1)
    late = _reaped(world, made)
    world.fail(late)
    assert world.complete(late) == set()
    assert set(world.states(made).values()) == {JobState.ERRORED}
    world.assert_adds_up(made)
