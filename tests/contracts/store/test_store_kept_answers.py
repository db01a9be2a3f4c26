"""An answer that was cut off and is asked for again is paid for: whatever comes after, the job ends with an answer."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from producers import audit_checks
from promptmill.retries import TRUNCATED, GiveUp
from promptmill.states import BatchState, JobState
from promptmill.store import audit, control, failures, jobs, results, workers
from promptmill.store.jobs import Deferral, Failure
from promptmill.store.leases import Lease
from promptmill.store.tables import batch as batch_table
from promptmill.store.tables import reply


def cut(world: Any, *leases: Lease) -> None:
    """The answers ended at `max_tokens`, and the jobs are to be asked again."""
    with world.database.begin() as conn:
        jobs.defer(conn, [cut_off(world, lease) for lease in leases], world.now)


def cut_off(world: Any, lease: Lease, text: str = "cut") -> Deferral:
    attempt = world.closed(lease, TRUNCATED, stop_reason="max_tokens")
    kept = world.completion(lease, text, attempt=attempt, stop_reason="max_tokens")
    return Deferral(
        job_id=lease.job_id,
        token=lease.token,
        attempt=attempt,
        error_kind=TRUNCATED,
        not_before=None,
        kept=kept,
    )


def canceled(world: Any, made: Any) -> None:
    with world.database.begin() as conn:
        control.cancel(conn, made.id, world.now)


def canceled_when_queued(world: Any, made: Any) -> None:
    world.dispatch(made)
    canceled(world, made)


def expired(world: Any, made: Any) -> None:
    with world.database.begin() as conn:
        conn.execute(batch_table.update().values(deadline=world.now - timedelta(seconds=1)))
        assert jobs.expire_overdue(conn, world.now) == 1
        assert jobs.expire_overdue(conn, world.now) == 0


def refused(world: Any, made: Any) -> None:
    world.fail(*world.running(made))


def too_large(world: Any, made: Any) -> None:
    [queued] = world.dispatch(made)
    with world.database.begin() as conn:
        failed = Failure(job_id=queued.job_id, dispatch=queued.dispatch, error_kind="request_too_large")
        assert jobs.fail(conn, [failed], world.now) == {queued.job_id: JobState.SUCCEEDED}


def deferred_in_a_canceled_batch(world: Any, made: Any) -> None:
    [lease] = world.running(made)
    canceled(world, made)
    assert world.defer(lease) == {lease.job_id}


def lost_in_a_canceled_batch(world: Any, made: Any) -> None:
    world.running(made)
    canceled(world, made)
    world.tick(60)
    assert len(world.reap()) == 1


def lost_too_often(world: Any, made: Any) -> None:
    world.running(made)
    world.tick(60)
    with world.database.begin() as conn:
        workers.reap(conn, world.now, after_loss=lambda _losses: GiveUp("lost too often"))


WAYS_OUT = [
    canceled,
    canceled_when_queued,
    expired,
    refused,
    too_large,
    deferred_in_a_canceled_batch,
    lost_in_a_canceled_batch,
    lost_too_often,
]


@pytest.mark.parametrize("way_out", WAYS_OUT)
def test_a_job_ends_with_the_answer_it_has_where_no_longer_one_comes(
    world: Any, way_out: Callable[[Any, Any], None]
) -> None:
    made = world.batch(1)
    cut(world, *world.running(made))
    assert set(world.states(made).values()) == {JobState.PENDING}
    with world.database.read() as conn:
        assert [each.text for each in results.iterate(conn, made.id)] == [None]
    world.assert_adds_up(made)
    way_out(world, made)
    assert set(world.states(made).values()) == {JobState.SUCCEEDED}
    row = world.row(made)
    assert (row.state, row.succeeded, row.done) == (BatchState.ENDED, 1, 1)
    assert row.formula_tokens_answered == row.formula_tokens
    world.assert_adds_up(made)
    with world.database.read() as conn:
        [result] = results.iterate(conn, made.id)
        assert failures.stop_reasons(conn, made.id) == {"max_tokens": 1}
        notes = {each.name for each in audit_checks.notes(audit.count(conn, made.id, world.now))}
    assert (result.text, result.stop_reason, result.error) == ("cut", "max_tokens", None)
    assert not {"paid_not_kept", "paid_truncated"} & notes


def test_a_cut_answer_that_comes_while_its_batch_is_canceled_is_the_answer(world: Any) -> None:
    made = world.batch(1)
    [lease] = world.running(made)
    canceled(world, made)
    cut(world, lease)
    assert set(world.states(made).values()) == {JobState.SUCCEEDED}
    assert world.row(made).state is BatchState.ENDED
    world.assert_adds_up(made)


def test_a_longer_answer_takes_the_place_of_the_one_that_was_cut(world: Any) -> None:
    made = world.batch(1)
    cut(world, *world.running(made))
    world.complete(*world.running(made))
    with world.database.read() as conn:
        assert conn.scalars(select(reply.c.text)).all() == ["42"]
        notes = {each.name: each for each in audit_checks.notes(audit.count(conn, made.id, world.now))}
    assert notes["paid_truncated"].count == 1
    assert "paid_not_kept" not in notes
    world.assert_adds_up(made)


def test_a_late_cut_answer_does_not_take_the_place_of_what_a_newer_worker_wrote(world: Any) -> None:
    made = world.batch(1)
    [late] = world.running(made, worker="frozen")
    world.tick(60)
    world.reap()
    world.complete(*world.running(made, worker="awake"))
    cut(world, late)
    with world.database.read() as conn:
        assert conn.scalars(select(reply.c.text)).all() == ["42"]
    world.assert_adds_up(made)


def test_others_of_the_batch_are_canceled_as_ever(world: Any) -> None:
    made = world.batch(3)
    cut(world, *world.running(made, 1))
    canceled(world, made)
    assert sorted(world.states(made).values()) == [JobState.CANCELED, JobState.CANCELED, JobState.SUCCEEDED]
    assert (world.row(made).canceled, world.row(made).succeeded) == (2, 1)
    world.assert_adds_up(made)


def test_one_that_is_told_twice_at_once_is_kept_once(world: Any) -> None:
    made = world.batch(1)
    [lease] = world.running(made)
    cut(world, lease, lease)
    canceled(world, made)
    assert world.row(made).succeeded == 1
    world.assert_adds_up(made)


def told_as_a_failure_first(world: Any, lease: Lease) -> None:
    world.defer(lease, after=0)
    cut(world, lease)


def told_as_an_answer_afterwards(world: Any, lease: Lease) -> None:
    cut(world, lease)
    world.complete(lease)


def told_as_a_refusal_afterwards(world: Any, lease: Lease) -> None:
    cut(world, lease)
    refusal = world.completion(lease, stop_reason="refusal")
    with world.database.begin() as conn:
        assert jobs.complete(conn, [refusal], world.now) == {lease.job_id}


@pytest.mark.parametrize(
    "tell", [told_as_a_failure_first, told_as_an_answer_afterwards, told_as_a_refusal_afterwards]
)
def test_one_attempt_that_is_told_of_in_two_ways_adds_up(
    world: Any, tell: Callable[[Any, Lease], None]
) -> None:
    made = world.batch(2)
    tell(world, *world.running(made, 1))
    world.assert_adds_up(made)
    canceled(world, made)
    world.assert_adds_up(made)
