"""What failed in a batch, in groups with a sample each, and the answers that are not whole."""

import random
import string
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from promptmill.states import JobState
from promptmill.store import control, failures, jobs, retrying
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


# Of letters at random: Postgres would pack others small enough for an index.
LONG = "".join(random.Random(1).choices(string.ascii_letters, k=6_000))


def _failed_with_long_words(world: Any, lease: Any) -> None:
    _fail(world, lease, "server_failed", status=500, error_type=LONG, error_code=LONG[::-1])


def _expired_after_long_words(world: Any, lease: Any) -> None:
    closed = world.closed(
        lease, "overloaded", usage=None, cost_nanos=0, error_type=LONG, error_code=LONG[::-1]
    )
    again = jobs.Deferral(
        job_id=lease.job_id, token=lease.token, attempt=closed, error_kind="overloaded", not_before=None
    )
    with world.database.begin() as conn:
        jobs.defer(conn, [again], world.now)
    world.tick(600)
    with world.database.begin() as conn:
        assert jobs.expire_overdue(conn, world.now) == 1


@pytest.mark.parametrize("happens", [_failed_with_long_words, _expired_after_long_words])
def test_what_a_server_calls_an_error_is_kept_short(world: Any, happens: Callable[[Any, Any], None]) -> None:
    made = world.batch(1, deadline=world.now + timedelta(seconds=500))
    [lease] = world.running(made)

    happens(world, lease)

    [group] = _groups(world, made)
    assert (group.type, group.code, group.custom_id) == (LONG[:100], LONG[::-1][:100], "row-0")
    world.assert_adds_up(made)


def test_a_stop_reason_is_kept_short(world: Any) -> None:
    made = world.batch(1)
    [lease] = world.running(made)
    long = world.completion(lease, stop_reason=LONG, attempt=world.closed(lease, stop_reason=LONG))
    with world.database.begin() as conn:
        assert jobs.complete(conn, [long], world.now) == {lease.job_id}

    with world.database.read() as conn:
        assert failures.stop_reasons(conn, made.id) == {LONG[:100]: 1}
    world.assert_adds_up(made)


def test_a_count_that_is_off_is_shown_without_an_example_or_not_at_all(world: Any) -> None:
    made = world.batch(2)
    world.fail(*world.running(made))
    words = {"nothing_such": 3, "none": 0, "less_than_none": -1}
    with world.database.begin() as conn:
        for kind, number in words.items():
            conn.execute(
                text("INSERT INTO batch_count VALUES (:id, 'failed', :word, :number)"),
                {"id": made.id, "word": f'["errored","{kind}",null,null,null]', "number": number},
            )

    first, second = _groups(world, made)

    assert (first.kind, first.jobs, first.custom_id, first.attempts, first.message) == (
        "nothing_such",
        3,
        None,
        0,
        None,
    )
    assert (second.kind, second.jobs, second.custom_id) == ("prompt_rejected", 2, "row-0")


def test_a_server_that_names_every_call_anew_makes_no_row_for_each(world: Any) -> None:
    made = world.batch(140)
    leases = world.running(made, 140)
    for place, lease in enumerate(leases[:70]):
        _fail(world, lease, "server_failed", status=500, error_code=f"trace {place}")
    odd = [
        world.completion(
            lease, stop_reason=f"odd {place}", attempt=world.closed(lease, stop_reason=f"odd {place}")
        )
        for place, lease in enumerate(leases[70:])
    ]
    with world.database.begin() as conn:
        jobs.complete(conn, odd, world.now)

    largest, second, *_ = _groups(world, made)

    assert (largest.kind, largest.jobs, largest.custom_id) == ("other", 20, None)
    assert second.jobs == 1
    with world.database.read() as conn:
        reasons = failures.stop_reasons(conn, made.id)
    assert (len(reasons), reasons["other"]) == (51, 20)
    world.assert_adds_up(made)


def test_what_is_taken_up_again_leaves_the_word_that_it_was_counted_under(world: Any) -> None:
    made = world.batch(60)
    for place, lease in enumerate(world.running(made, 60)):
        _fail(world, lease, "server_failed", status=500, error_code=f"trace {place}")
    with world.database.begin() as conn:
        page = retrying.page_to_retry(conn, made.id, [JobState.ERRORED])
        assert page
        retrying.retry(conn, made.id, page.ids, [JobState.ERRORED], world.now)
    assert _groups(world, made) == []
    world.assert_adds_up(made)

    with world.database.begin() as conn:
        control.cancel(conn, made.id, world.now)
    world.assert_adds_up(made)
