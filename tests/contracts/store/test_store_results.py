"""Results come in the order of submission, page by page, with what each job took."""

from typing import Any

import pytest

from promptmill.states import JobState
from promptmill.store import jobs, results
from promptmill.store.jobs import Failure
from promptmill.usage import Usage


def _results(world: Any, made: Any, **options: Any) -> list[Any]:
    with world.database.read() as conn:
        return list(results.iterate(conn, made.id, **options))


@pytest.mark.parametrize("page", [1, 2, 3, 100])
def test_results_come_in_the_order_of_submission_whatever_the_page(world: Any, page: int) -> None:
    made = world.batch(6)
    world.complete(*reversed(world.running(made, 4)))
    assert [row.custom_id for row in _results(world, made, page=page)] == [f"row-{n}" for n in range(6)]


def test_an_answered_job_has_its_answer_and_its_input(world: Any) -> None:
    made = world.batch(1)
    [lease] = world.running(made)
    with world.database.begin() as conn:
        jobs.complete(conn, [world.completion(lease, "forty-two", parsed=[1])], world.now)
    [row] = _results(world, made)
    assert (row.job_id, row.state, row.text, row.parsed) == (
        lease.job_id,
        JobState.SUCCEEDED,
        "forty-two",
        [1],
    )
    assert row.message["content"][0]["text"] == "forty-two"
    assert (row.source, row.simulated, row.stop_reason) == ({"line": 0}, True, "end_turn")
    assert (row.attempts, row.cost_nanos, row.unpriced_attempts, row.error) == (1, 600_000, 0, None)


def test_only_the_states_asked_for_are_given(world: Any) -> None:
    made = world.batch(4)
    first, second = world.running(made, 2)
    world.complete(first)
    world.fail(second)
    only = _results(world, made, only={JobState.SUCCEEDED, JobState.ERRORED}, page=1)
    assert [(row.custom_id, row.state) for row in only] == [
        ("row-0", JobState.SUCCEEDED),
        ("row-1", JobState.ERRORED),
    ]


def test_usage_and_cost_are_summed_over_all_attempts(world: Any) -> None:
    made = world.batch(1)
    [cut] = world.running(made)
    with world.database.begin() as conn:
        closed = world.closed(
            cut, "connection_failed", usage=Usage(input_tokens=1, output_tokens=2), cost_nanos=7
        )
        jobs.defer(
            conn,
            [jobs.Deferral(job_id=cut.job_id, token=cut.token, not_before=None, attempt=closed)],
            world.now,
        )
    world.complete(*world.running(made))
    [row] = _results(world, made)
    assert (row.attempts, row.cost_nanos) == (2, 600_007)
    assert (row.usage.input_tokens, row.usage.output_tokens) == (101, 22)


def test_an_unknown_cost_is_said(world: Any) -> None:
    made = world.batch(1)
    world.running(made, worker="dead")
    world.tick(60)
    world.reap()
    [lost] = _results(world, made)
    assert (lost.cost_nanos, lost.unpriced_attempts) == (None, 1)
    world.complete(*world.running(made))
    [row] = _results(world, made)
    assert (row.cost_nanos, row.unpriced_attempts) == (600_000, 1)


def test_an_errored_job_says_what_the_server_said(world: Any) -> None:
    made = world.batch(1)
    [lease] = world.running(made)
    closed = world.closed(
        lease,
        "prompt_rejected",
        status=400,
        error_type="invalid_request_error",
        error_code="too_long",
        error_message="prompt is too long",
        request_id="req_9",
        cost_nanos=0,
    )
    with world.database.begin() as conn:
        gone = Failure(job_id=lease.job_id, token=lease.token, attempt=closed, error_kind="prompt_rejected")
        jobs.fail(conn, [gone], world.now)
    [row] = _results(world, made)
    assert row.error == results.ResultError(
        kind="prompt_rejected",
        status=400,
        type="invalid_request_error",
        code="too_long",
        message="prompt is too long",
        request_id="req_9",
    )


def test_a_job_given_up_before_any_attempt_says_why(world: Any) -> None:
    made = world.batch(1)
    [queued] = world.dispatch(made)
    with world.database.begin() as conn:
        jobs.fail(
            conn,
            [Failure(job_id=queued.job_id, dispatch=queued.dispatch, error_kind="request_too_large")],
            world.now,
        )
    [row] = _results(world, made)
    assert (row.error.kind, row.error.status, row.attempts) == ("request_too_large", None, 0)


def test_places_left_free_are_passed_over(world: Any) -> None:
    made = world.admitting(0)
    rows = [world.new_job(seq) for seq in (0, 3, 4, 1_000_000, 1_000_001)]
    with world.database.begin() as conn:
        jobs.insert_many(conn, made.id, rows, world.now)
    for only in (None, [JobState.PENDING]):
        found = _results(world, made, only=only, page=2)
        assert [row.seq for row in found] == [0, 3, 4, 1_000_000, 1_000_001]
    assert _results(world, made, only=[JobState.ERRORED], page=2) == []


def test_no_jobs_give_no_results(world: Any) -> None:
    assert _results(world, world.batch(0)) == []
