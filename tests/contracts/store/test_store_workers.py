"""A process lives while its row is fresh; the jobs of dead ones are taken back."""

from datetime import timedelta
from typing import Any

from sqlalchemy import update

from promptmill.retries import GiveUp, Retry
from promptmill.states import BatchState, JobState
from promptmill.store import control, ledger, workers
from promptmill.store.database import database_now
from promptmill.store.tables import job


def _live(world: Any) -> list[str]:
    with world.database.read() as conn:
        return [each.id for each in workers.live(conn, world.now)]


def test_a_worker_lives_while_it_beats(world: Any) -> None:
    world.alive("one")
    world.tick(6)
    world.alive("two")
    with world.database.begin() as conn:
        assert workers.beat(conn, "one", 7, world.now)
    world.tick(9)
    assert _live(world) == ["one", "two"]
    with world.database.read() as conn:
        [one, _] = workers.live(conn, world.now)
    assert (one.running, one.host, one.pid, one.slots) == (7, "here", 1, 10)
    world.tick(1)
    assert _live(world) == []


def test_a_worker_that_left_must_register_again(world: Any) -> None:
    world.alive("one")
    with world.database.begin() as conn:
        workers.leave(conn, "one", world.now)
        assert not workers.beat(conn, "one", 0, world.now)
        assert not workers.beat(conn, "unknown", 0, world.now)
    assert _live(world) == []
    world.alive("one")
    assert _live(world) == ["one"]


def test_jobs_of_a_silent_worker_go_back_to_pending(world: Any) -> None:
    made = world.batch(3)
    dead = world.running(made, 2, worker="dead")
    world.tick(8)
    alive = world.running(made, 1, worker="alive")
    assert world.reap() == []
    world.tick(2)
    assert sorted(world.reap()) == sorted(lease.job_id for lease in dead)
    assert list(world.states(made).values()) == [JobState.PENDING, JobState.PENDING, JobState.RUNNING]
    assert world.reap() == []
    world.assert_adds_up(made)
    assert world.complete(*alive) == {alive[0].job_id}


def test_an_attempt_of_a_dead_worker_is_lost_and_its_cost_unknown(world: Any) -> None:
    made = world.batch(1)
    world.running(made, worker="dead")
    world.tick(10)
    world.reap()
    with world.database.read() as conn:
        [attempt] = ledger.attempts_of(conn, batch_id=made.id)
    assert (attempt.outcome, attempt.closed_at, attempt.cost_nanos) == (ledger.LOST, world.now, None)
    row = world.row(made)
    assert (row.unpriced_attempts, row.reserved_nanos, row.cost_nanos) == (1, 0, 0)


def test_jobs_of_a_worker_that_left_are_taken_back_at_once(world: Any) -> None:
    made = world.batch(1)
    [lease] = world.running(made, worker="leaving")
    with world.database.begin() as conn:
        workers.leave(conn, "leaving", world.now)
    assert world.reap() == [lease.job_id]


def test_jobs_of_a_worker_nobody_knows_are_taken_back(world: Any) -> None:
    made = world.batch(1)
    [lease] = world.begin(world.dispatch(made), "never-registered")
    assert world.reap() == [lease.job_id]


def test_a_reaped_job_of_a_canceled_batch_is_canceled(world: Any) -> None:
    made = world.batch(1)
    world.running(made, worker="dead")
    with world.database.begin() as conn:
        control.cancel(conn, made.id, world.now)
    world.tick(10)
    world.reap()
    assert (world.row(made).state, world.row(made).canceled) == (BatchState.ENDED, 1)
    world.assert_adds_up(made)


def _lose(world: Any, made: Any, losses: list[int]) -> None:
    """One more worker of the batch's job is lost; what the policy was asked is added to `losses`."""

    def rest_a_minute_each_then_give_up_at_three(count: int) -> Retry | GiveUp:
        losses.append(count)
        return GiveUp("poison") if count == 3 else Retry(after=60.0 * (count - 1), counted=False)

    world.running(made, worker="dead")
    world.tick(10)
    with world.database.begin() as conn:
        workers.reap(conn, world.now, after_loss=rest_a_minute_each_then_give_up_at_three)


def test_a_job_whose_worker_is_lost_again_rests_and_then_ends(world: Any) -> None:
    made, losses = world.batch(1), list[int]()
    _lose(world, made, losses)
    _lose(world, made, losses)
    assert world.dispatch(made) == []
    world.tick(60)
    _lose(world, made, losses)
    assert losses == [1, 2, 3]
    assert list(world.states(made).values()) == [JobState.ERRORED]
    assert (world.row(made).state, world.row(made).errored) == (BatchState.ENDED, 1)
    world.assert_adds_up(made)


def test_losses_that_were_forgiven_do_not_count(world: Any) -> None:
    made, losses = world.batch(1), list[int]()
    _lose(world, made, losses)
    with world.database.begin() as conn:
        conn.execute(update(job).values(forgiven=job.c.attempts))
    _lose(world, made, losses)
    assert losses == [1, 1]


def test_a_live_process_gives_up_only_the_leases_it_names_and_still_holds(world: Any) -> None:
    made = world.batch(3)
    mine = world.running(made, 2, worker="mine")
    [other] = world.running(made, 1, worker="other")
    with world.database.begin() as conn:
        assert workers.running_of(conn, "mine") == {lease.job_id: lease.token for lease in mine}
        asked = {mine[0].job_id: mine[0].token, mine[1].job_id: mine[1].token - 1, other.job_id: other.token}
        assert workers.take_back(conn, "mine", asked, world.now) == [mine[0].job_id]
    assert sorted(world.states(made).values()) == [JobState.PENDING, JobState.RUNNING, JobState.RUNNING]
    world.assert_adds_up(made)


def test_a_lease_that_a_live_process_gives_up_goes_back_at_once_however_often_and_is_no_loss(
    world: Any,
) -> None:
    made, losses = world.batch(1), list[int]()
    for _ in range(3):
        [lease] = world.running(made, worker="mine")
        with world.database.begin() as conn:
            workers.take_back(conn, "mine", {lease.job_id: lease.token}, world.now)
    with world.database.read() as conn:
        attempts = ledger.attempts_of(conn, batch_id=made.id)
    assert {each.outcome for each in attempts} == {ledger.ORPHANED}
    assert all("lives" in str(each.error_message) for each in attempts)
    _lose(world, made, losses)
    assert losses == [1]
    world.assert_adds_up(made)


def test_the_clock_of_the_database_gives_utc_and_moves(world: Any) -> None:
    with world.database.read() as conn:
        first, second = database_now(conn), database_now(conn)
    assert first.utcoffset() == timedelta(0)
    assert first <= second
