"""A lease is granted once per dispatch, with its attempt opened in the same commit."""

from typing import Any

from promptmill.states import JobState, Lane
from promptmill.store import batches, control, jobs, leases, ledger
from promptmill.usage import Usage


def test_beginning_opens_the_attempt_with_the_lease(world: Any) -> None:
    made = world.batch(1)
    [queued] = world.dispatch(made)
    claim = world.claim(queued, key_label="spare", account="acme", reserved_nanos=77)
    with world.database.begin() as conn:
        granted = leases.begin(conn, [claim], "worker-1", world.now)
        [opened] = ledger.attempts_of(conn, job_id=queued.job_id)
        row = batches.get(conn, made.id)
    assert granted == {
        queued.job_id: leases.Lease(job_id=queued.job_id, token=1, attempt_id=claim.attempt_id, number=1)
    }
    assert (opened.id, opened.number, opened.token) == (claim.attempt_id, 1, 1)
    assert (opened.key_label, opened.account, opened.worker_id) == ("spare", "acme", "worker-1")
    assert (opened.outcome, opened.closed_at, opened.opened_at) == (ledger.OPEN, None, world.now)
    assert (opened.lane, opened.usage, opened.cost_nanos) == (Lane.REALTIME, Usage(), None)
    assert (row.attempts, row.reserved_nanos, row.started_at) == (1, 77, world.now)


def test_a_batch_starts_with_its_first_attempt(world: Any) -> None:
    made = world.batch(2)
    first = world.now
    world.running(made, 1)
    world.tick(5)
    world.running(made, 1)
    assert world.row(made).started_at == first


def test_a_message_delivered_twice_begins_once(world: Any) -> None:
    made = world.batch(1)
    queued = world.dispatch(made)
    assert len(world.begin(queued, "worker-1")) == 1
    assert world.begin(queued, "worker-2") == []
    assert world.row(made).attempts == 1


def test_a_message_that_comes_twice_in_one_group_begins_once(world: Any) -> None:
    made = world.batch(1)
    [queued] = world.dispatch(made)
    first, second = world.claim(queued), world.claim(queued)
    with world.database.begin() as conn:
        granted = leases.begin(conn, [first, second], "worker-1", world.now)
    assert granted[queued.job_id].attempt_id == first.attempt_id
    world.assert_adds_up(made)


def test_an_old_message_begins_nothing(world: Any) -> None:
    made = world.batch(1)
    [old] = world.dispatch(made)
    with world.database.begin() as conn:
        jobs.unqueue(conn, [(old.job_id, old.dispatch)], world.now)
    assert world.begin([old]) == []
    [new] = world.dispatch(made)
    assert world.begin([old]) == []
    assert len(world.begin([new])) == 1


def test_the_token_and_the_number_grow_with_every_grant(world: Any) -> None:
    made = world.batch(1)
    for number in (1, 2, 3):
        [lease] = world.running(made)
        assert (lease.token, lease.number) == (number, number)
        world.defer(lease, after=0)


def test_nothing_begins_in_a_batch_that_is_paused_or_canceled(world: Any) -> None:
    paused, canceled = world.batch(1), world.batch(1)
    queued = world.dispatch(paused) + world.dispatch(canceled)
    with world.database.begin() as conn:
        control.pause(conn, paused.id, "lunch", world.now)
        control.cancel(conn, canceled.id, world.now)
    assert world.begin(queued) == []
    assert set(world.states(paused).values()) == {JobState.PENDING}
    assert set(world.states(canceled).values()) == {JobState.CANCELED}


def test_an_unknown_job_is_not_granted(world: Any) -> None:
    made = world.batch(1)
    [queued] = world.dispatch(made)
    with world.database.begin() as conn:
        claim = world.claim(queued, job_id="job_unknown")
        assert leases.begin(conn, [claim], "worker-1", world.now) == {}
        assert leases.begin(conn, [], "worker-1", world.now) == {}
