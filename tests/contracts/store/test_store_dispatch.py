"""Pending jobs are found in order, queued once, and called back."""

import threading
from datetime import timedelta
from typing import Any

from promptmill.states import BatchState, JobState
from promptmill.store import control, jobs

GROUP = "claude-sonnet-5"


def _pending(world: Any, made: Any, group: str = GROUP, limit: int = 100) -> list[int]:
    with world.database.read() as conn:
        return [each.seq for each in jobs.select_pending(conn, made.id, group, limit, world.now)]


def _groups(world: Any, made: Any) -> list[str]:
    with world.database.read() as conn:
        return list(jobs.groups_pending(conn, world.now).get(made.id, ()))


def test_jobs_are_selected_in_the_order_of_submission(world: Any) -> None:
    made = world.batch(5)
    assert _pending(world, made, limit=3) == [0, 1, 2]
    with world.database.read() as conn:
        [first] = jobs.select_pending(conn, made.id, GROUP, 1, world.now)
    assert (first.estimated_input_tokens, first.estimated_output_tokens) == (100, 50)


def test_a_deferred_job_is_selected_when_its_time_has_come(world: Any) -> None:
    made = world.batch(3)
    world.defer(*world.running(made, 1), after=5)
    assert _pending(world, made) == [1, 2]
    world.tick(5)
    assert _pending(world, made) == [0, 1, 2]
    assert _pending(world, made, limit=2) == [0, 1]


def test_groups_are_those_with_a_job_to_select(world: Any) -> None:
    made = world.admitting(0)
    rows = [
        world.new_job(0, model_group="opus"),
        world.new_job(1, model_group="haiku"),
        world.new_job(2, model_group="opus"),
    ]
    with world.database.begin() as conn:
        jobs.insert_many(conn, made.id, rows, world.now)
        control.seal(conn, made.id, world.now)
    assert _groups(world, made) == ["haiku", "opus"]
    assert _pending(world, made, "opus") == [0, 2]
    with world.database.begin() as conn:
        [haiku] = jobs.select_pending(conn, made.id, "haiku", 1, world.now)
        jobs.queue(conn, [haiku.id], world.now)
    assert _groups(world, made) == ["opus"]


def test_a_group_whose_jobs_all_wait_is_left_out_until_the_first_is_due(world: Any) -> None:
    made = world.batch(2)
    first, second = world.running(made)
    world.defer(first, after=5)
    world.defer(second, after=60)
    assert _groups(world, made) == []
    world.tick(5)
    assert _groups(world, made) == [GROUP]


def test_a_queued_job_carries_the_next_dispatch_number(world: Any) -> None:
    made = world.batch(1, name="evening")
    [once] = world.dispatch(made)
    assert (once.dispatch, once.batch, once.model, once.attempts) == (1, "evening", GROUP, 0)
    with world.database.begin() as conn:
        assert jobs.unqueue(conn, [(once.job_id, once.dispatch)], world.now) == {once.job_id}
    [again] = world.dispatch(made)
    assert (again.job_id, again.dispatch) == (once.job_id, 2)


def test_jobs_are_queued_in_the_order_asked_for(world: Any) -> None:
    made = world.batch(5)
    with world.database.begin() as conn:
        ids = [each.id for each in jobs.select_pending(conn, made.id, GROUP, 5, world.now)][::-1]
        assert [each.job_id for each in jobs.queue(conn, ids, world.now)] == ids


def test_a_job_is_queued_once(world: Any) -> None:
    made = world.batch(1)
    [queued] = world.dispatch(made)
    with world.database.begin() as conn:
        assert jobs.queue(conn, [queued.job_id, "job_unknown"], world.now) == []


def test_nothing_is_queued_in_a_batch_that_is_not_active(world: Any) -> None:
    made = world.admitting(1)
    assert world.dispatch(made) == []
    with world.database.begin() as conn:
        control.seal(conn, made.id, world.now)
        control.pause(conn, made.id, "lunch", world.now)
    assert world.dispatch(made) == []


def test_two_dispatchers_at_once_queue_each_job_once(world: Any) -> None:
    made = world.batch(60)
    with world.database.read() as conn:
        ids = [each.id for each in jobs.select_pending(conn, made.id, GROUP, 60, world.now)]
    queued: list[str] = []
    at_once = threading.Barrier(2)

    def dispatch(mine: list[str]) -> None:
        at_once.wait()
        for start in range(0, 60, 20):
            with world.database.begin() as conn:
                queued.extend(each.job_id for each in jobs.queue(conn, mine[start : start + 20], world.now))

    threads = [threading.Thread(target=dispatch, args=(mine,)) for mine in (ids, ids[::-1])]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(queued) == sorted(ids)


def test_an_old_message_unqueues_nothing(world: Any) -> None:
    made = world.batch(1)
    [queued] = world.dispatch(made)
    with world.database.begin() as conn:
        assert jobs.unqueue(conn, [(queued.job_id, queued.dispatch - 1)], world.now) == set()
    assert set(world.states(made).values()) == {JobState.QUEUED}


def test_lost_ids_are_those_queued_long_ago_that_nobody_has(world: Any) -> None:
    made = world.batch(3)
    old = world.dispatch(made, 2)
    world.tick(60)
    world.dispatch(made, 1)
    with world.database.begin() as conn:
        before = world.now - timedelta(seconds=30)
        lost = jobs.lost_queued(conn, {old[1].job_id}, before)
        assert lost == [(old[0].job_id, 1)]
        assert jobs.unqueue(conn, lost, world.now) == {old[0].job_id}
    assert list(world.states(made).values()) == [JobState.PENDING, JobState.QUEUED, JobState.QUEUED]


def test_an_overdue_batch_ends_what_waits(world: Any) -> None:
    made = world.batch(4, deadline=world.now + timedelta(seconds=10))
    running, deferred = world.running(made, 2)
    world.defer(deferred, after=60)
    world.dispatch(made, 1)
    with world.database.begin() as conn:
        assert jobs.expire_overdue(conn, world.now) == 0
    world.tick(10)
    with world.database.begin() as conn:
        assert jobs.expire_overdue(conn, world.now) == 3
        assert jobs.expire_overdue(conn, world.now) == 0
    world.assert_adds_up(made)
    world.complete(running)
    ended = world.row(made)
    assert (ended.state, ended.expired, ended.succeeded) == (BatchState.ENDED, 3, 1)
    world.assert_adds_up(made)


def test_a_loaded_job_has_its_prompt_and_what_its_batch_says(world: Any) -> None:
    made = world.batch(2, name="maths", options={"retries": 2}, priority=0.1)
    queued = world.dispatch(made)
    with world.database.read() as conn:
        loaded = jobs.load(conn, [queued[0].job_id, "job_unknown"])
    [job] = loaded.values()
    assert (job.id, job.custom_id, job.batch_name) == (queued[0].job_id, "row-0", "maths")
    assert dict(job.prompt.body) == {
        "model": GROUP,
        "max_tokens": 64,
        "messages": [{"role": "user", "content": "What is 0?"}],
    }
    assert (job.state, job.dispatch, job.attempts) == (JobState.QUEUED, 1, 0)
    assert (job.options, job.priority, job.endpoint) == ({"retries": 2}, 0.1, made.endpoint)
    assert (job.failures, job.first_opened_at) == ({}, None)


def test_a_loaded_job_knows_how_often_it_failed_and_since_when(world: Any) -> None:
    made = world.batch(1)
    began = world.now
    for _ in range(2):
        [lease] = world.running(made)
        world.defer(lease, after=1)
        world.tick(2)
    with world.database.read() as conn:
        job = jobs.load(conn, [lease.job_id])[lease.job_id]
    assert (job.attempts, job.failures, job.first_opened_at) == (2, {"overloaded": 2}, began)


def test_own_fields_of_a_job_win_over_those_of_its_batch(world: Any) -> None:
    made = world.admitting(0)
    with world.database.begin() as conn:
        new = world.new_job(0, body={"max_tokens": 9, "messages": []})
        jobs.insert_many(conn, made.id, [new], world.now)
        [made_of_it] = jobs.select_pending(conn, made.id, GROUP, 1, world.now)
        assert jobs.load(conn, [made_of_it.id])[made_of_it.id].prompt.max_tokens == 9


def test_of_two_messages_of_one_job_only_the_newer_may_begin_it(world: Any) -> None:
    made = world.batch(1)
    [old] = world.dispatch(made)
    with world.database.begin() as conn:
        control.pause(conn, made.id, "for a moment", world.now)
        control.resume(conn, made.id, world.now)
    [new] = world.dispatch(made)
    places = [(old.job_id, old.dispatch), (new.job_id, new.dispatch)]
    with world.database.read() as conn:
        assert jobs.queued_under(conn, places) == {places[1]}
