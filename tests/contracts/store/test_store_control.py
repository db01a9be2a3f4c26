"""A person changes their mind about a batch that has begun: its jobs are retried, its terms are changed."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from promptmill.budgets import dollars
from promptmill.errors import InvalidInput, InvalidTransition
from promptmill.states import BatchState, JobState, PausedBy
from promptmill.store import control, jobs, ledger, retrying, terms
from promptmill.store.tables import batch
from promptmill.store.terms import NewTerms

FAILED = (JobState.ERRORED, JobState.EXPIRED)


def retry(world: Any, made: Any, *states: JobState, at_once: int | None = None) -> int:
    """All of them, page by page."""
    total, after = 0, -1
    while True:
        with world.database.read() as conn:
            page = retrying.page_to_retry(conn, made.id, states or FAILED, after_seq=after)
        if page is None:
            return total
        after = page.last_seq
        with world.database.begin() as conn:
            total += retrying.retry(conn, made.id, page.ids, states or FAILED, world.now)


def change(world: Any, made: Any, **new: Any) -> Any:
    with world.database.begin() as conn:
        return terms.change(conn, made.id, NewTerms(**new), world.now)


def half_failed(world: Any, **changes: Any) -> Any:
    """Four jobs that have all ended: two answered, two errored."""
    made = world.batch(4, **changes)
    leases = world.running(made)
    world.complete(*leases[:2])
    world.fail(*leases[2:])
    return made


def test_a_retry_revives_an_ended_batch_with_its_failed_jobs_alone(world: Any) -> None:
    made = half_failed(world)
    assert world.row(made).state is BatchState.ENDED
    assert retry(world, made) == 2
    row = world.row(made)
    assert (row.state, row.ended_at, row.succeeded, row.errored) == (BatchState.ACTIVE, None, 2, 0)
    world.assert_adds_up(made)
    world.complete(*world.running(made))
    assert set(world.states(made).values()) == {JobState.SUCCEEDED}
    assert world.row(made).state is BatchState.ENDED
    world.assert_adds_up(made)


def test_what_was_retried_begins_with_a_clean_record_and_its_attempts_stay_in_the_ledger(world: Any) -> None:
    made = half_failed(world)
    retry(world, made)
    [first, _] = world.dispatch(made)
    with world.database.begin() as conn:
        loaded = jobs.load(conn, [first.job_id])[first.job_id]
        attempts = ledger.attempts_of(conn, batch_id=made.id)
    assert (dict(loaded.failures), loaded.first_opened_at, loaded.attempts) == ({}, None, 1)
    assert len(attempts) == 4


def test_only_the_outcomes_that_were_named_are_retried(world: Any) -> None:
    made = half_failed(world)
    assert retry(world, made, JobState.CANCELED, JobState.EXPIRED) == 0
    assert world.row(made).state is BatchState.ENDED


def test_only_the_jobs_that_errored_of_a_kind_are_retried(world: Any) -> None:
    made = world.batch(3)
    kinds = ("lost", "server_failed", "lost")
    failures = [world.failure(lease, kind) for lease, kind in zip(world.running(made), kinds, strict=True)]
    with world.database.begin() as conn:
        jobs.fail(conn, failures, world.now)
    with world.database.read() as conn:
        found = retrying.page_to_retry(conn, made.id, (), kinds={"lost"})
        none = retrying.page_to_retry(conn, made.id, (JobState.EXPIRED,), kinds={"overloaded"})
    assert found is not None
    assert (len(found.ids), found.last_seq, none) == (2, 2, None)


def test_jobs_that_were_canceled_can_be_taken_up_again(world: Any) -> None:
    made = world.batch(3)
    with world.database.begin() as conn:
        control.cancel(conn, made.id, world.now)
    assert retry(world, made, JobState.CANCELED) == 3
    world.assert_adds_up(made)


def test_a_batch_is_retried_while_it_runs_and_a_paused_one_stays_paused(world: Any) -> None:
    made = world.batch(4)
    [lease] = world.running(made, 1)
    world.fail(lease)
    with world.database.begin() as conn:
        control.pause(conn, made.id, "lunch", world.now)
    assert retry(world, made) == 1
    assert world.row(made).state is BatchState.PAUSED
    world.assert_adds_up(made)


def test_many_are_retried_page_by_page_and_none_twice(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "MOST_AT_ONCE", 2)
    retrying._ended.cache_clear()
    made = world.batch(7)
    world.fail(*world.running(made))
    assert retry(world, made) == 7
    retrying._ended.cache_clear()
    world.assert_adds_up(made)


def test_a_batch_past_its_deadline_is_not_retried_before_it_has_another(world: Any) -> None:
    made = half_failed(world, deadline=world.now + timedelta(hours=1))
    world.tick(7200)
    with pytest.raises(InvalidTransition, match=r"set .* --deadline"):
        retry(world, made)
    change(world, made, deadline=None)
    assert retry(world, made) == 2


def test_what_is_being_canceled_is_neither_retried_nor_changed(world: Any) -> None:
    made = world.batch(2)
    failed, _running = world.running(made)
    world.fail(failed)
    with world.database.begin() as conn:
        control.cancel(conn, made.id, world.now)
    with pytest.raises(InvalidTransition, match="canceled"):
        retry(world, made)
    with pytest.raises(InvalidTransition, match="canceled"):
        change(world, made, priority=2.0)


def test_what_was_canceled_half_way_is_not_retried(world: Any) -> None:
    """Its file was not read to the end, so it would pass for complete."""
    made = world.admitting(2)
    with world.database.begin() as conn:
        control.cancel(conn, made.id, world.now)
    with pytest.raises(InvalidTransition, match="was canceled half-way, with 2 prompts and not all"):
        retry(world, made, JobState.CANCELED)


def test_terms_change_one_by_one_and_the_rest_stays(world: Any) -> None:
    later = world.now + timedelta(days=1)
    made = world.batch(2, budget_nanos=5, deadline=later)
    row = change(world, made, priority=10.0)
    assert (row.priority, row.budget_nanos, row.deadline) == (10.0, 5, later)
    row = change(world, made, budget_nanos=None, deadline=None)
    assert (row.priority, row.budget_nanos, row.deadline) == (10.0, None, None)


def test_a_deadline_that_is_over_is_refused(world: Any) -> None:
    made = world.batch(1)
    with pytest.raises(InvalidInput, match="over already"):
        change(world, made, deadline=world.now)


def test_a_new_deadline_acts_on_what_waits(world: Any) -> None:
    made = world.batch(2)
    change(world, made, deadline=world.now + timedelta(seconds=5))
    world.tick(6)
    with world.database.begin() as conn:
        assert jobs.expire_overdue(conn, world.now) == 2
    assert world.row(made).expired == 2


@pytest.mark.parametrize(("budget", "state"), [(100, "paused"), (101, "active"), (None, "active")])
def test_a_raised_budget_takes_up_what_the_budget_had_paused(
    world: Any, budget: int | None, state: str
) -> None:
    made = world.batch(2, budget_nanos=50)
    with world.database.begin() as conn:
        control.hold(conn, made.id, "budget of $5", world.now, by=PausedBy.BUDGET)
        conn.execute(update(batch).values(cost_nanos=60, reserved_nanos=30, unknown_nanos=10))
    assert change(world, made, budget_nanos=budget).state == state


def test_a_budget_below_what_is_gone_pauses_the_batch_and_the_reason_follows_the_amount(world: Any) -> None:
    made = half_failed(world, budget_nanos=50_000_000)
    retry(world, made)
    spent = world.row(made).cost_nanos
    row = change(world, made, budget_nanos=spent - 1)
    assert (row.state, row.paused_by) == (BatchState.PAUSED, PausedBy.BUDGET)
    assert f"budget of {dollars(spent - 1)}: {dollars(spent)} spent; nothing is left of it" in row.reason
    assert f"budget of {dollars(spent)}:" in change(world, made, budget_nanos=spent).reason
    assert change(world, made, budget_nanos=spent + 1).state is BatchState.ACTIVE


def test_a_raised_budget_does_not_wake_what_a_person_has_paused(world: Any) -> None:
    made = world.batch(2, budget_nanos=50)
    with world.database.begin() as conn:
        control.hold(conn, made.id, "budget of $5", world.now, by=PausedBy.BUDGET)
        control.pause(conn, made.id, "paused by a person", world.now)
    row = change(world, made, budget_nanos=None)
    assert (row.state, row.paused_by, row.reason) == (
        BatchState.PAUSED,
        PausedBy.PERSON,
        "paused by a person",
    )


def test_what_waits_for_a_date_goes_on_by_itself_when_it_has_come(world: Any) -> None:
    waiting, for_ever = world.batch(2), world.batch(2)
    lifts = world.now + timedelta(days=8)
    with world.database.begin() as conn:
        control.hold(conn, waiting.id, "cap", world.now, by=PausedBy.SPEND_CAP, resume_at=lifts)
        control.hold(conn, for_ever.id, "cap", world.now, by=PausedBy.SPEND_CAP)
        assert control.resume_due(conn, world.now) == []
        assert control.resume_due(conn, lifts) == [waiting.id]
    row = world.row(waiting)
    assert (row.state, row.reason, row.paused_by, row.resume_at, row.resumed_at) == (
        BatchState.ACTIVE, None, None, None, lifts,
    )  # fmt: skip
    assert world.row(for_ever).state is BatchState.PAUSED


def test_what_waits_for_a_key_goes_on_when_there_is_one_and_nothing_else_does(world: Any) -> None:
    keyless, capped, stopped, elsewhere = (world.batch(2) for _ in range(4))
    with world.database.begin() as conn:
        for made, by in (
            (keyless, PausedBy.KEY), (capped, PausedBy.SPEND_CAP), (stopped, PausedBy.KEY), (elsewhere, PausedBy.KEY),
        ):  # fmt: skip
            control.hold(conn, made.id, "why", world.now, by=by)
        control.pause(conn, stopped.id, "paused by a person", world.now)
        conn.execute(update(batch).where(batch.c.id == elsewhere.id).values(endpoint="https://elsewhere"))
        assert control.resume_held(conn, PausedBy.KEY, world.row(keyless).endpoint) == [keyless.id]
    row = world.row(keyless)
    assert (row.state, row.reason, row.paused_by, row.resumed_at) == (BatchState.ACTIVE, None, None, None)
    assert [world.row(other).state for other in (capped, stopped, elsewhere)] == [BatchState.PAUSED] * 3


def test_a_person_who_pauses_what_waits_for_a_date_is_waited_for(world: Any) -> None:
    made = world.batch(2)
    lifts = world.now + timedelta(days=8)
    with world.database.begin() as conn:
        control.hold(conn, made.id, "cap", world.now, by=PausedBy.SPEND_CAP, resume_at=lifts)
        control.pause(conn, made.id, "paused by a person", world.now)
        assert control.resume_due(conn, lifts) == []
    with world.database.begin() as conn, pytest.raises(InvalidTransition):
        control.pause(conn, made.id, "again", world.now)
