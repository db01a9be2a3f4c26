"""The audit counts a batch from its rows: it holds of all that the store does, and each lie is found by name."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

import producers
from producers import audit_checks
from producers.audit_checks import Check, Note
from promptmill import settings
from promptmill.pricing import PriceBook
from promptmill.store import audit, batches, jobs, recounting
from promptmill.store.batches import BatchRow


def _count(world: Any, made: BatchRow) -> tuple[BatchRow, audit.Counted]:
    with world.database.read() as conn:
        return batches.get(conn, made.id), audit.count(conn, made.id, world.now)


def _broken(world: Any, made: BatchRow) -> dict[str, tuple[int, int]]:
    """What does not hold: expected and found, by name."""
    found: Sequence[Check] = audit_checks.checks(*_count(world, made))
    return {each.name: (each.expected, each.found) for each in found if not each.ok}


def _notes(world: Any, made: BatchRow) -> dict[str, tuple[int, int | None]]:
    found: Sequence[Note] = audit_checks.notes(_count(world, made)[1])
    return {each.name: (each.count, each.nanos) for each in found}


def _do(world: Any, statement: str, **values: Any) -> None:
    with world.database.begin() as conn:
        conn.execute(text(statement), values)


@pytest.fixture
def at_work(world: Any) -> BatchRow:
    """Of 6 jobs: 2 answered, 1 failed, 1 taken back from a dead worker, 1 running, 1 waiting."""
    made: BatchRow = world.batch(6)
    [lost] = world.running(made, 1, worker="dead")
    world.tick(60)
    assert world.reap() == [lost.job_id]
    first, second, third, _ = world.running(made, 4)
    world.complete(first, second)
    world.fail(third)
    return made


def test_a_batch_at_work_holds(world: Any, at_work: BatchRow) -> None:
    assert _broken(world, at_work) == {}


def test_a_batch_without_jobs_holds(world: Any) -> None:
    assert _broken(world, world.batch(0)) == {}


def test_a_batch_that_is_still_read_holds(world: Any) -> None:
    assert _broken(world, world.admitting(3)) == {}


def test_a_batch_that_has_ended_holds(world: Any) -> None:
    made = world.batch(3)
    world.complete(*world.running(made))
    assert _broken(world, made) == {}


def test_other_batches_are_not_counted(world: Any, at_work: BatchRow) -> None:
    other = world.batch(2)
    world.complete(*world.running(other))
    assert _broken(world, at_work) == {}
    assert _broken(world, other) == {}


def test_what_may_have_been_billed_and_lost_is_told_with_what_was_set_aside(
    world: Any, at_work: BatchRow
) -> None:
    assert _notes(world, at_work) == {"unknown_lost": (1, 1_000)}


def test_an_answer_that_was_paid_twice_is_told(world: Any) -> None:
    made = world.batch(1)
    [late] = world.running(made, 1, worker="frozen")
    world.tick(60)
    world.reap()
    [again] = world.running(made, 1)
    assert world.complete(late) == set()
    assert world.complete(again) == {again.job_id}
    assert _broken(world, made) == {}
    assert _notes(world, made) == {
        "paid_not_kept": (1, 600_000),
        "answered_again": (1, None),
        "paid_again": (1, None),
    }


def test_a_call_that_two_attempts_claim_is_found(world: Any) -> None:
    made = world.batch(3)
    first, second, third = (world.completion(lease) for lease in world.running(made))
    claims = [
        replace(each, attempt=replace(each.attempt, request_id=request_id))
        for each, request_id in ((first, "req_1"), (second, "req_1"), (third, "req_2"))
    ]
    with world.database.begin() as conn:
        jobs.complete(conn, claims, world.now)
    assert _broken(world, made) == {"claimed_again": (0, 1)}


def _answered_without_cost(world: Any, model: str) -> BatchRow:
    """A batch of two answers of that model, one of which has no cost."""
    made: BatchRow = world.batch(2)
    leases = world.running(made)
    costs = [world.closed(lease, cost_nanos=cost) for lease, cost in zip(leases, (None, 1), strict=True)]
    answers = [
        world.completion(lease, attempt=closed, model=model)
        for lease, closed in zip(leases, costs, strict=True)
    ]
    with world.database.begin() as conn:
        jobs.complete(conn, answers, world.now)
    return made


class _Prices(PriceBook):
    """Those by which the world's calls were priced."""

    def __init__(self) -> None:
        super().__init__()
        self.version = "2026-03"


@pytest.mark.parametrize(
    ("model", "prices", "missing", "notes"),
    [
        ("claude-sonnet-5", _Prices(), 1, set()),
        ("claude-nobody-7", _Prices(), 0, {"unpriced_answers"}),
        ("claude-sonnet-5", PriceBook(), 0, {"unpriced_answers"}),
    ],
    ids=["the price is known", "nobody knows the price", "prices have changed since"],
)
def test_an_answer_without_a_cost_is_a_fault_where_its_price_was_known_and_else_a_note(
    world: Any, model: str, prices: PriceBook, missing: int, notes: set[str]
) -> None:
    _, counted = _count(world, _answered_without_cost(world, model))
    check, told = audit_checks.prices(counted, prices)
    assert (check.name, check.expected, check.found) == ("answers_without_cost", 0, missing)
    assert {each.name for each in told} == notes


def test_a_job_of_a_dead_worker_is_missed(world: Any, at_work: BatchRow) -> None:
    world.tick(60)
    assert _broken(world, at_work) == {"running_with_worker": (1, 0)}


def test_what_is_kept_word_by_word_is_put_right_by_a_count(world: Any) -> None:
    made = world.batch(70)
    leases = world.running(made, 70)
    odd = [
        world.completion(each, attempt=world.closed(each, stop_reason=f"odd {each.job_id}"))
        for each in leases[:60]
    ]
    with world.database.begin() as conn:
        jobs.complete(conn, odd, world.now)
    world.defer(*leases[60:65])
    world.fail(*leases[65:])
    assert _broken(world, made) == {}
    _do(world, "UPDATE batch_count SET number = number - 3 WHERE batch_id = :id", id=made.id)
    _do(world, "DELETE FROM batch_count WHERE batch_id = :id AND word LIKE 'odd%1'", id=made.id)
    assert _broken(world, made)

    with world.database.begin() as conn:
        recounting.recount(conn, made.id)

    assert _broken(world, made) == {}
    world.running(made)
    world.reap()
    assert _broken(world, made) == {}


def test_a_person_is_told_how_to_have_it_counted_anew_and_can(
    world: Any, database_url: str, tmp_path: Path
) -> None:
    made = world.batch(1)
    world.fail(*world.running(made))
    _do(world, "UPDATE batch_count SET number = 5 WHERE batch_id = :id", id=made.id)
    where = settings.load(environ={"DATABASE_URL": database_url}, folder=tmp_path)

    before, after = (producers.audit(made.id, recount=recount, settings=where) for recount in (False, True))

    assert {each.name for each in before.broken} == {"failure_groups", "attempts_prompt_rejected"}
    assert f"promptmill audit '{made.name}' --recount" in before.remarks[-1]
    assert (after.ok, [each for each in after.remarks if "--recount" in each]) == (True, [])


_OF_BATCH = "(SELECT id FROM job WHERE batch_id = :id)"
_MOVE_A_REPLY = f"""
    UPDATE reply SET job_id = (SELECT id FROM job WHERE batch_id = :id AND state = 'errored')
    WHERE job_id = (SELECT min(job_id) FROM reply WHERE job_id IN {_OF_BATCH})
"""


@pytest.mark.parametrize(
    ("lie", "found"),
    [
        (
            "DELETE FROM job WHERE batch_id = :id AND state = 'pending' AND attempts = 0",
            {"jobs", "still_open"},
        ),
        ("UPDATE batch SET errored = errored + 1 WHERE id = :id", {"errored", "still_open"}),
        ("UPDATE batch SET succeeded = succeeded - 1 WHERE id = :id", {"succeeded", "still_open"}),
        (
            "UPDATE job SET state = 'expired' WHERE batch_id = :id AND state = 'errored'",
            {"errored", "expired", "failure_groups"},
        ),
        (
            "UPDATE batch_count SET number = number + 1 WHERE batch_id = :id AND what = 'failed'",
            {"failure_groups"},
        ),
        (f"DELETE FROM reply WHERE job_id IN {_OF_BATCH}", {"replies"}),
        (
            f"UPDATE reply SET attempt_id = 'none' WHERE job_id IN {_OF_BATCH}",
            {"replies_without_attempt"},
        ),
        (
            f"UPDATE reply SET attempt_id = (SELECT max(attempt_id) FROM reply) WHERE job_id IN {_OF_BATCH}",
            {"replies_without_attempt"},
        ),
        (
            "UPDATE attempt SET outcome = 'overloaded' WHERE batch_id = :id AND outcome = 'succeeded'",
            {"attempts_overloaded", "replies_without_attempt"},
        ),
        (
            _MOVE_A_REPLY,
            {"replies", "replies_elsewhere", "replies_without_attempt"},
        ),
        (
            "DELETE FROM attempt WHERE batch_id = :id AND outcome = 'prompt_rejected'",
            {"attempts", "attempts_of_jobs", "attempts_prompt_rejected"},
        ),
        ("UPDATE batch SET attempts = attempts + 1 WHERE id = :id", {"attempts"}),
        (
            "UPDATE job SET attempts = attempts + 1 WHERE batch_id = :id AND state = 'running'",
            {"attempts_of_jobs"},
        ),
        (
            "UPDATE attempt SET token = token - 1 WHERE batch_id = :id AND outcome = 'open'",
            {"without_end", "running_without_attempt"},
        ),
        (
            "UPDATE attempt SET cost_nanos = cost_nanos + 1 WHERE batch_id = :id AND outcome = 'succeeded'",
            {"cost"},
        ),
        ("UPDATE batch SET cost_nanos = cost_nanos - 1 WHERE id = :id", {"cost"}),
        ("UPDATE batch SET reserved_nanos = 0 WHERE id = :id", {"reserved"}),
        ("UPDATE batch SET unpriced_attempts = 0 WHERE id = :id", {"unpriced_attempts"}),
        ("UPDATE batch SET unknown_nanos = unknown_nanos + 1 WHERE id = :id", {"unknown"}),
        (
            "UPDATE attempt SET cost_nanos = 0 WHERE batch_id = :id AND outcome = 'lost'",
            {"unpriced_attempts", "unknown"},
        ),
        ("UPDATE batch SET input_tokens = 0 WHERE id = :id", {"input_tokens"}),
        ("UPDATE batch SET output_tokens = 0 WHERE id = :id", {"output_tokens"}),
        ("UPDATE batch SET cache_write_tokens = 0 WHERE id = :id", {"cache_write_tokens"}),
        ("UPDATE batch SET cache_read_tokens = 0 WHERE id = :id", {"cache_read_tokens"}),
        ("UPDATE batch SET state = 'ended' WHERE id = :id", {"open_after_end", "attempts_open_after_end"}),
    ],
)
def test_each_lie_is_found(world: Any, at_work: BatchRow, lie: str, found: set[str]) -> None:
    _do(world, lie, id=at_work.id)

    assert set(_broken(world, at_work)) == found


def test_a_batch_that_should_have_ended_is_found(world: Any) -> None:
    made = world.batch(1)
    world.complete(*world.running(made))
    _do(world, "UPDATE batch SET state = 'active' WHERE id = :id", id=made.id)
    assert _broken(world, made) == {"not_ended": (0, 1)}


def test_a_running_job_without_an_attempt_is_found(world: Any, at_work: BatchRow) -> None:
    _do(world, "DELETE FROM attempt WHERE batch_id = :id AND outcome = 'open'", id=at_work.id)
    assert {"running_without_attempt", "attempts", "reserved"} <= set(_broken(world, at_work))
