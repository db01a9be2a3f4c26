"""A budget is reserved with the lease and settled with the outcome, under the lock of the batch."""

import threading
from datetime import timedelta
from typing import Any

from promptmill.states import BatchState, JobState, PausedBy
from promptmill.store import batches, jobs, leases, ledger, terms
from promptmill.store.leases import Lease, NoRoom
from promptmill.store.terms import NewTerms


def begin(world: Any, queued: Any, **changes: Any) -> list[Any]:
    """What became of each claim, in order; None for one that was refused."""
    claims = [world.claim(each, **changes) for each in queued]
    with world.database.begin() as conn:
        answers = leases.begin(conn, claims, "worker-1", world.now)
    return [answers.get(each.job_id) for each in queued]


def test_only_the_calls_that_fit_begin_in_order(world: Any) -> None:
    made = world.batch(4, budget_nanos=2_500)
    answers = begin(world, world.dispatch(made))
    assert [type(each) for each in answers] == [Lease, Lease, NoRoom, NoRoom]
    assert world.row(made).reserved_nanos == 2_000
    assert world.row(made).state is BatchState.ACTIVE
    world.assert_adds_up(made)


def test_what_does_not_fit_now_is_pending_until_its_time(world: Any) -> None:
    made = world.batch(2, budget_nanos=1_500)
    later = world.now + timedelta(seconds=3)
    answers = begin(world, world.dispatch(made), again_at=later)
    assert answers[1].stopped is None
    assert list(world.states(made).values()) == [JobState.RUNNING, JobState.PENDING]
    assert world.dispatch(made) == []
    world.tick(3)
    assert len(world.dispatch(made)) == 1


def test_a_smaller_call_behind_one_that_is_too_large_begins(world: Any) -> None:
    made = world.batch(2, budget_nanos=1_500)
    large, small = world.dispatch(made)
    claims = [world.claim(large, reserved_nanos=2_000), world.claim(small, reserved_nanos=1_000)]
    with world.database.begin() as conn:
        answers = leases.begin(conn, claims, "worker-1", world.now)
    assert isinstance(answers[small.job_id], Lease)
    assert answers[large.job_id].stopped is None


def test_when_nothing_fits_and_nothing_is_in_flight_the_batch_is_paused_with_the_reason(world: Any) -> None:
    made = world.batch(3, budget_nanos=900)
    queued = world.dispatch(made)
    answers = begin(world, queued[:1])
    row = world.row(made)
    assert (row.state, row.paused_by, row.resume_at) == (BatchState.PAUSED, PausedBy.BUDGET, None)
    assert row.reason == answers[0].stopped == (
        "budget of $0.0000009: $0.00 spent; the next call may cost $0.000001"
    )  # fmt: skip
    assert set(world.states(made).values()) == {JobState.PENDING}
    assert begin(world, queued[1:]) == [None, None]
    world.assert_adds_up(made)


def test_a_call_of_unknown_price_never_begins_in_a_batch_with_a_budget(world: Any) -> None:
    made = world.batch(2, budget_nanos=1_000_000)
    queued = world.dispatch(made)
    begin(world, queued[:1])
    [answer] = begin(world, queued[1:], reserved_nanos=None)
    assert "price of the next call is unknown" in answer.stopped
    assert world.row(made).state is BatchState.PAUSED


def test_what_was_set_aside_and_not_spent_is_room_again(world: Any) -> None:
    made = world.batch(2, budget_nanos=1_000_000)
    [first, second] = world.dispatch(made)
    [lease] = begin(world, [first], reserved_nanos=900_000)
    assert isinstance(begin(world, [second], reserved_nanos=200_000)[0], NoRoom)
    world.complete(lease)  # for 600,000
    [again] = world.dispatch(made)
    assert isinstance(begin(world, [again], reserved_nanos=200_000)[0], Lease)


def test_what_a_killed_worker_set_aside_is_spent_until_the_late_writer_says(world: Any) -> None:
    made = world.batch(1, budget_nanos=1_500)
    [lease] = world.running(made)
    world.tick(30)
    world.reap()
    row = world.row(made)
    assert (row.reserved_nanos, row.unknown_nanos, row.cost_nanos) == (0, 1_000, 0)
    [answer] = begin(world, world.dispatch(made))
    assert "$0.000001 set aside for calls whose cost nobody can know" in answer.stopped
    with world.database.begin() as conn:
        closed = world.closed(lease, cost_nanos=200)
        jobs.complete(conn, [world.completion(lease, attempt=closed)], world.now)
    assert (world.row(made).unknown_nanos, world.row(made).cost_nanos) == (0, 200)


def test_a_claim_repeated_after_a_lost_commit_gets_the_lease_that_it_has_paid_for(world: Any) -> None:
    made = world.batch(1, budget_nanos=1_000)
    [queued] = world.dispatch(made)
    claim = world.claim(queued)
    for _ in range(2):
        with world.database.begin() as conn:
            answers = leases.begin(conn, [claim], "worker-1", world.now)
        assert answers[queued.job_id].attempt_id == claim.attempt_id
        assert isinstance(answers[queued.job_id], Lease)
    assert world.row(made).reserved_nanos == 1_000


def test_a_stale_message_takes_no_room_and_pauses_nothing(world: Any) -> None:
    made = world.batch(2, budget_nanos=1_000)
    stale, other = world.dispatch(made)
    with world.database.begin() as conn:
        jobs.unqueue(conn, [(stale.job_id, stale.dispatch)], world.now)
    assert begin(world, [stale]) == [None]
    assert isinstance(begin(world, [stale, other])[1], Lease)


def test_batches_with_and_without_a_budget_begin_side_by_side(world: Any) -> None:
    poor, free = world.batch(3, budget_nanos=1_000), world.batch(3)
    answers = begin(world, [*world.dispatch(poor), *world.dispatch(free)])
    assert [type(each) for each in answers] == [Lease, NoRoom, NoRoom, Lease, Lease, Lease]


def test_a_raised_budget_lets_the_batch_go_on_and_a_lowered_one_stops_it(world: Any) -> None:
    made = world.batch(3, budget_nanos=500)
    begin(world, world.dispatch(made, 1))

    def set_budget(nanos: int) -> None:
        with world.database.begin() as conn:
            terms.change(conn, made.id, NewTerms(budget_nanos=nanos), world.now)

    set_budget(1_000)
    assert world.row(made).state is BatchState.ACTIVE
    [lease] = begin(world, world.dispatch(made, 1))
    assert isinstance(lease, Lease)
    set_budget(10)
    assert isinstance(begin(world, world.dispatch(made, 1))[0], NoRoom)
    assert world.row(made).state is BatchState.ACTIVE  # the call in flight may give something back
    world.complete(lease)
    begin(world, world.dispatch(made, 1))
    assert world.row(made).paused_by is PausedBy.BUDGET


def test_many_workers_at_once_reserve_no_more_than_there_is(world: Any) -> None:
    made = world.batch(24, budget_nanos=5_500)
    queued = world.dispatch(made)
    answers: list[Any] = []
    threads = [
        threading.Thread(target=lambda part=queued[n::8]: answers.extend(begin(world, part)))
        for n in range(8)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sum(isinstance(each, Lease) for each in answers) == 5
    assert len(answers) == 24
    assert world.row(made).reserved_nanos == 5_000
    world.assert_adds_up(made)


def test_the_figures_of_a_budget_are_those_of_the_attempts(world: Any) -> None:
    made = world.batch(3, budget_nanos=10_000)
    done, failed, _ = world.running(made)
    world.complete(done)
    world.fail(failed)
    with world.database.read() as conn:
        costs = ledger.costs(conn, made.id)
        row = batches.get(conn, made.id)
    assert (
        (row.cost_nanos, row.reserved_nanos) == (costs.cost_nanos, costs.reserved_nanos) == (600_000, 1_000)
    )
