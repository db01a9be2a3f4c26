"""What failed in a batch, in groups with a sample each, and the answers that are not whole."""

from typing import Any

from promptmill.states import JobState
from promptmill.store import failures, jobs
from promptmill.store.failures import FailureGroup
from promptmill.store.jobs import Failure


def _fail(world: Any, lease: Any, kind: str, state: JobState = JobState.ERRORED, **facts: Any) -> None:
    closed = world.closed(lease, kind, usage=None, usage_raw=None, cost_nanos=0, **facts)
    failure = Failure(job_id=lease.job_id, token=lease.token, attempt=closed, error_kind=kind, state=state)
    with world.database.begin() as conn:
        jobs.fail(conn, [failure], world.now)


def _groups(world: Any, made: Any) -> list[FailureGroup]:
    with world.database.read() as conn:
        return list(failures.groups(conn, made.id))


def test_jobs_are_grouped_by_what_they_failed_of_the_largest_group_first(world: Any) -> None:
    made = world.batch(4)
    first, second, third, fourth = world.running(made)
    _fail(world, first, "server_failed", status=500, error_type="api_error", request_id="req_1")
    refused: dict[str, Any] = {
        "status": 400,
        "error_type": "invalid_request_error",
        "error_message": "too long",
    }
    _fail(world, second, "prompt_rejected", request_id="req_2", **refused)
    _fail(world, third, "prompt_rejected", request_id="req_3", **refused)
    world.complete(fourth)

    largest, other = _groups(world, made)

    assert (largest.jobs, largest.kind, largest.status, largest.type) == (
        2,
        "prompt_rejected",
        400,
        "invalid_request_error",
    )
    assert (largest.custom_id, largest.attempts, largest.message, largest.request_id) == (
        "row-1",
        1,
        "too long",
        "req_2",
    )
    assert (other.jobs, other.kind, other.status) == (1, "server_failed", 500)


def test_a_job_that_was_never_begun_is_in_a_group_too(world: Any) -> None:
    made = world.batch(1)
    [queued] = world.dispatch(made)
    refused = Failure(job_id=queued.job_id, dispatch=queued.dispatch, error_kind="request_too_large")
    with world.database.begin() as conn:
        jobs.fail(conn, [refused], world.now)

    [group] = _groups(world, made)

    assert (group.jobs, group.kind, group.attempts, group.message) == (1, "request_too_large", 0, None)
    assert "shorten the prompt" in group.advice


def test_jobs_that_expired_say_so_before_what_they_failed_of(world: Any) -> None:
    made = world.batch(1)
    [lease] = world.running(made)
    _fail(world, lease, "overloaded", JobState.EXPIRED, status=529)

    [group] = _groups(world, made)

    assert (group.state, group.kind) == (JobState.EXPIRED, "overloaded")
    assert "deadline" in group.advice


def test_other_batches_and_jobs_that_are_tried_again_are_in_no_group(world: Any) -> None:
    made, other = world.batch(2), world.batch(1)
    world.defer(*world.running(made))
    world.fail(*world.running(other))

    assert _groups(world, made) == []


def test_answers_that_are_not_whole_are_counted_by_their_reason(world: Any) -> None:
    made = world.batch(4)
    reasons = ["end_turn", "refusal", "max_tokens", "max_tokens"]
    completions = [
        world.completion(lease, stop_reason=reason, attempt=world.closed(lease, stop_reason=reason))
        for lease, reason in zip(world.running(made), reasons, strict=True)
    ]
    with world.database.begin() as conn:
        jobs.complete(conn, completions, world.now)

    with world.database.read() as conn:
        assert failures.stop_reasons(conn, made.id) == {"max_tokens": 2, "refusal": 1}
