"""What waits, by batch and model group."""

from typing import Any

from promptmill.store import backlog, batches, control, jobs
from promptmill.store.backlog import WaitingJobs

OTHER = "claude-opus-5"
GROUP = "claude-sonnet-5"


def waiting(world: Any) -> list[WaitingJobs]:
    with world.database.read() as conn:
        return backlog.waiting_jobs(conn)


def counts(world: Any) -> list[tuple[str, int, int, int]]:
    return [(each.model_group, each.pending, each.queued, each.running) for each in waiting(world)]


def test_jobs_are_told_apart_by_how_far_they_have_come(world: Any) -> None:
    made = world.batch(5)
    world.running(made, 2)
    world.dispatch(made, 1)

    assert counts(world) == [("claude-sonnet-5", 2, 1, 2)]
    assert waiting(world)[0].batch_name == made.name


def test_a_batch_for_several_model_groups_is_told_by_group(world: Any) -> None:
    with world.database.begin() as conn:
        made = batches.create(conn, world.new_batch(), world.now)
        rows = [world.new_job(0), world.new_job(1, model_group=OTHER), world.new_job(2, model_group=OTHER)]
        jobs.insert_many(conn, made.id, rows, world.now)
        control.seal(conn, made.id, world.now)

    assert counts(world) == [(OTHER, 2, 0, 0), ("claude-sonnet-5", 1, 0, 0)]


def test_who_looks_often_counts_a_batch_for_several_groups_once_in_a_while(world: Any) -> None:
    with world.database.begin() as conn:
        made = batches.create(conn, world.new_batch(), world.now)
        rows = [world.new_job(seq, model_group=OTHER if seq % 2 else GROUP) for seq in range(6)]
        jobs.insert_many(conn, made.id, rows, world.now)
        control.seal(conn, made.id, world.now)
    moment = [0.0]
    counted = backlog.Counted(keep_s=10.0, monotonic=lambda: moment[0])

    def pending() -> dict[str, int]:
        with world.database.read() as conn:
            return {each.model_group: each.pending for each in backlog.waiting_jobs(conn, counted)}

    assert pending() == {OTHER: 3, GROUP: 3}
    world.complete(*world.running(made, 1))
    moment[0] = 9.0
    assert pending() == {OTHER: 3, GROUP: 3}
    moment[0] = 10.0
    assert pending() == {OTHER: 3, GROUP: 2}


def test_a_deferred_job_waits_too(world: Any) -> None:
    made = world.batch(1)
    (lease,) = world.running(made)
    world.defer(lease)

    assert counts(world) == [("claude-sonnet-5", 1, 0, 0)]


def test_a_paused_batch_does_not_wait_for_a_limit(world: Any) -> None:
    made = world.batch(2)
    with world.database.begin() as conn:
        control.pause(conn, made.id, "lunch", world.now)

    assert waiting(world) == []


def test_a_batch_that_is_done_is_not_told(world: Any) -> None:
    made = world.batch(1)
    (lease,) = world.running(made)
    world.complete(lease)

    assert waiting(world) == []
