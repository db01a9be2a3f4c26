"""Outcomes are written in groups: replies, failures, deferrals, and what each attempt used."""

import tracemalloc
from datetime import timedelta
from typing import Any

from sqlalchemy import select

from promptmill.states import BatchState, JobState
from promptmill.store import control, jobs, ledger
from promptmill.store.jobs import Deferral, Failure
from promptmill.store.tables import job, reply
from promptmill.usage import Usage


def test_a_completion_stores_the_reply_and_closes_the_attempt(world: Any) -> None:
    made = world.batch(1)
    [lease] = world.running(made)
    world.tick(2)
    completion = world.completion(lease, "forty-two", parsed={"answer": 42}, stop_reason="max_tokens")
    with world.database.begin() as conn:
        assert jobs.complete(conn, [completion], world.now) == {lease.job_id}
        stored = conn.execute(select(reply)).one()
        [attempt] = ledger.attempts_of(conn, job_id=lease.job_id)
    assert (stored.text, stored.parsed, stored.message) == ("forty-two", {"answer": 42}, completion.message)
    assert (stored.stop_reason, stored.attempt_id) == ("max_tokens", lease.attempt_id)
    assert (attempt.outcome, attempt.closed_at, attempt.cost_nanos) == ("succeeded", world.now, 600_000)
    assert attempt.usage == completion.attempt.usage
    assert attempt.usage_raw == {"input_tokens": 100}
    world.assert_adds_up(made)


def test_what_an_attempt_used_is_added_to_the_batch(world: Any) -> None:
    made = world.batch(2)
    world.complete(*world.running(made))
    row = world.row(made)
    assert (row.succeeded, row.cost_nanos, row.reserved_nanos) == (2, 1_200_000, 0)
    assert (row.input_tokens, row.output_tokens) == (200, 40)
    assert (row.cache_write_tokens, row.cache_read_tokens) == (6, 14)


def test_the_last_job_ends_the_batch(world: Any) -> None:
    made = world.batch(3)
    first, second, third = world.running(made)
    world.complete(first)
    world.fail(second)
    assert world.row(made).state is BatchState.ACTIVE
    world.tick(1)
    world.complete(third)
    assert (world.row(made).state, world.row(made).ended_at) == (BatchState.ENDED, world.now)
    world.assert_adds_up(made)


def test_a_paused_batch_ends_with_its_last_running_job(world: Any) -> None:
    made = world.batch(1)
    [lease] = world.running(made)
    with world.database.begin() as conn:
        control.pause(conn, made.id, "lunch", world.now)
    world.complete(lease)
    assert (world.row(made).state, world.row(made).reason) == (BatchState.ENDED, None)


def test_one_group_may_hold_jobs_of_several_batches(world: Any) -> None:
    several = [world.batch(2) for _ in range(3)]
    leases_ = [lease for made in several for lease in world.running(made, 1)]
    assert world.complete(*leases_) == {lease.job_id for lease in leases_}
    for made in several:
        assert world.row(made).succeeded == 1
        world.assert_adds_up(made)


def test_a_failure_ends_the_job_with_its_kind(world: Any) -> None:
    made = world.batch(1)
    [lease] = world.running(made)
    assert world.fail(lease) == {lease.job_id}
    with world.database.read() as conn:
        assert conn.scalar(select(job.c.error_kind)) == "prompt_rejected"
        [attempt] = ledger.attempts_of(conn, batch_id=made.id)
    assert attempt.outcome == "prompt_rejected"
    assert world.row(made).errored == 1
    world.assert_adds_up(made)


def test_a_job_that_never_began_fails_by_its_dispatch_number(world: Any) -> None:
    made = world.batch(1)
    [queued] = world.dispatch(made)
    wrong = Failure(job_id=queued.job_id, dispatch=queued.dispatch + 1, error_kind="request_too_large")
    right = Failure(job_id=queued.job_id, dispatch=queued.dispatch, error_kind="request_too_large")
    with world.database.begin() as conn:
        assert jobs.fail(conn, [wrong], world.now) == {}
        assert jobs.fail(conn, [right], world.now) == {queued.job_id: JobState.ERRORED}
    assert world.row(made).attempts == 0
    world.assert_adds_up(made)


def test_a_failure_may_say_that_the_deadline_passed(world: Any) -> None:
    made = world.batch(1)
    [lease] = world.running(made)
    closed = world.closed(lease, "overloaded", cost_nanos=0)
    late = Failure(
        job_id=lease.job_id,
        token=lease.token,
        attempt=closed,
        error_kind="overloaded",
        state=JobState.EXPIRED,
    )
    with world.database.begin() as conn:
        jobs.fail(conn, [late], world.now)
    assert world.row(made).expired == 1
    world.assert_adds_up(made)


def test_a_deferred_job_waits_for_its_time(world: Any) -> None:
    made = world.batch(1)
    [lease] = world.running(made)
    assert world.defer(lease, after=30) == {lease.job_id}
    with world.database.read() as conn:
        row = conn.execute(select(job)).one()
    assert (row.state, row.not_before) == (JobState.PENDING, world.now + timedelta(seconds=30))
    assert (row.worker_id, row.error_kind, row.attempts) == (None, "overloaded", 1)
    world.assert_adds_up(made)


def test_a_job_that_waited_too_long_for_a_permit_is_deferred_without_an_attempt(world: Any) -> None:
    made = world.batch(1)
    [queued] = world.dispatch(made)
    later = Deferral(
        job_id=queued.job_id, dispatch=queued.dispatch, not_before=world.now + timedelta(seconds=3)
    )
    with world.database.begin() as conn:
        assert jobs.defer(conn, [later], world.now) == {queued.job_id: JobState.PENDING}
        assert jobs.defer(conn, [later], world.now) == {}
    assert world.row(made).attempts == 0
    world.assert_adds_up(made)


def test_an_unknown_cost_is_counted_and_not_taken_for_zero(world: Any) -> None:
    made = world.batch(1)
    [lease] = world.running(made)
    unknown = world.completion(lease, attempt=world.closed(lease, cost_nanos=None, usage=None))
    with world.database.begin() as conn:
        jobs.complete(conn, [unknown], world.now)
        [attempt] = ledger.attempts_of(conn, job_id=lease.job_id)
    assert (attempt.cost_nanos, attempt.usage) == (None, Usage())
    assert (world.row(made).cost_nanos, world.row(made).unpriced_attempts) == (0, 1)
    world.assert_adds_up(made)


def test_tokens_used_before_a_failure_are_kept(world: Any) -> None:
    made = world.batch(1)
    [lease] = world.running(made)
    cut = world.closed(
        lease,
        "connection_failed",
        usage=Usage(input_tokens=9, output_tokens=4),
        cost_nanos=50,
        status=200,
        request_id="req_1",
        error_message="no message_stop",
    )
    with world.database.begin() as conn:
        jobs.defer(
            conn,
            [Deferral(job_id=lease.job_id, token=lease.token, not_before=None, attempt=cut)],
            world.now,
        )
        [attempt] = ledger.attempts_of(conn, job_id=lease.job_id)
    assert (attempt.usage.output_tokens, attempt.request_id) == (4, "req_1")
    assert (attempt.status, attempt.error_message) == (200, "no message_stop")
    assert (world.row(made).output_tokens, world.row(made).cost_nanos) == (4, 50)
    world.assert_adds_up(made)


def test_an_error_page_is_not_kept_whole(world: Any) -> None:
    made = world.batch(1)
    [lease] = world.running(made)
    page = world.closed(lease, "server_failed", error_message="<html>" * 10_000)
    with world.database.begin() as conn:
        jobs.fail(
            conn,
            [Failure(job_id=lease.job_id, token=lease.token, attempt=page, error_kind="server_failed")],
            world.now,
        )
        [attempt] = ledger.attempts_of(conn, job_id=lease.job_id)
    assert len(attempt.error_message) == 2_000


def test_an_empty_group_writes_nothing(world: Any) -> None:
    with world.database.begin() as conn:
        assert jobs.complete(conn, [], world.now) == set()
        assert jobs.fail(conn, [], world.now) == {}
        assert jobs.defer(conn, [], world.now) == {}


def test_long_answers_are_written_without_a_copy_of_them_all(world: Any) -> None:
    leases = world.running(world.batch(20))
    completions = [world.completion(lease, '"ä"\n' * 100_000) for lease in leases]
    size = sum(2 * len(each.text) for each in completions)
    tracemalloc.start()

    with world.database.begin() as conn:
        jobs.complete(conn, completions, world.now)

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * size
    with world.database.read() as conn:
        assert conn.scalar(select(reply.c.text).limit(1)) == completions[0].text
        assert conn.scalar(select(reply.c.message).limit(1)) == completions[0].message
