"""A batch is made, found, sealed and controlled."""

from datetime import timedelta
from typing import Any

import pytest

from promptmill.errors import InvalidInput, InvalidTransition, NotFound
from promptmill.states import BATCH_CHANGES, BatchState, JobState, Lane, PausedBy
from promptmill.store import batches, control, jobs


def test_a_new_batch_comes_back_as_it_was_given(world: Any) -> None:
    deadline = world.now + timedelta(hours=24)
    new = world.new_batch(
        name="nightly",
        lane=Lane.BULK,
        priority=10.0,
        tags={"team": "maths"},
        options={"max_tries": 3},
        content_hash="abc",
        deadline=deadline,
        estimate_nanos=5,
        budget_nanos=9_000_000_000_000,
    )
    with world.database.begin() as conn:
        made = batches.create(conn, new, world.now)
        assert batches.shared_of(conn, made.id) == new.shared
    found = world.row(made)
    assert found == made
    assert (found.name, found.lane, found.priority) == ("nightly", Lane.BULK, 10.0)
    assert (found.tags, found.options) == ({"team": "maths"}, {"max_tries": 3})
    assert (found.deadline, found.created_at) == (deadline, world.now)
    assert (found.estimate_nanos, found.budget_nanos) == (5, 9_000_000_000_000)
    assert (found.state, found.total, found.done) == (BatchState.ADMITTING, 0, 0)


def test_a_name_is_given_once(world: Any) -> None:
    world.batch(name="twice")
    with pytest.raises(InvalidInput, match="twice"):
        world.batch(name="twice")


def test_a_batch_is_found_by_name_and_by_id(world: Any) -> None:
    made = world.batch(name="mine")
    with world.database.read() as conn:
        assert batches.find(conn, "mine").id == made.id
        assert batches.find(conn, made.id).name == "mine"
        assert batches.find_by_name(conn, "mine").id == made.id
        assert batches.find_by_name(conn, "other") is None


def test_what_is_not_found_is_answered_with_what_there_is(world: Any) -> None:
    with world.database.read() as conn, pytest.raises(NotFound, match="none at all"):
        batches.find(conn, "gone")
    world.batch(name="monday")
    with world.database.read() as conn, pytest.raises(NotFound, match=r"'gone'.*monday"):
        batches.find(conn, "gone")


def test_a_misspelt_name_is_answered_with_those_that_may_be_meant(world: Any) -> None:
    for name in ("big", "sums-de7a7f49", *(f"tick-{run}" for run in range(6))):
        world.batch(name=name, tags={"schedule": "tick", "due": name} if "tick" in name else {})

    for wrong, words in {
        "bgi": "did you mean big?",
        "sums": "did you mean sums-de7a7f49?",
        "other": "the newest are: tick-5, sums-de7a7f49, big",
    }.items():
        with world.database.read() as conn, pytest.raises(NotFound) as found:
            batches.find(conn, wrong)
        assert str(found.value) == f"there is no batch '{wrong}'; {words}"


def test_the_newest_batches_are_listed_first(world: Any) -> None:
    for name in ("first", "second", "third"):
        world.batch(name=name)
        world.tick(1)
    with world.database.read() as conn:
        assert [each.name for each in batches.list_recent(conn, 2)] == ["third", "second"]


def test_the_dispatcher_sees_active_batches_only(world: Any) -> None:
    world.admitting()
    active = world.batch()
    paused = world.batch()
    with world.database.begin() as conn:
        control.pause(conn, paused.id, "lunch", world.now)
        assert [each.id for each in batches.active(conn)] == [active.id]


def test_sealing_makes_a_batch_active(world: Any) -> None:
    made = world.batch(3)
    assert (made.state, made.total, made.sealed_at) == (BatchState.ACTIVE, 3, world.now)
    world.assert_adds_up(made)


def test_an_empty_batch_ends_when_it_is_sealed(world: Any) -> None:
    made = world.batch(0)
    assert (made.state, made.ended_at) == (BatchState.ENDED, world.now)


def test_pausing_calls_queued_jobs_back(world: Any) -> None:
    made = world.batch(3)
    queued = world.dispatch(made, 2)
    world.alive("worker-1")
    [lease] = world.begin(queued[:1])
    with world.database.begin() as conn:
        paused = control.pause(conn, made.id, "budget used up", world.now)
    assert (paused.state, paused.reason) == (BatchState.PAUSED, "budget used up")
    assert list(world.states(made).values()) == [JobState.RUNNING, JobState.PENDING, JobState.PENDING]
    assert world.begin(queued[1:]) == []
    assert world.complete(lease) == {lease.job_id}
    world.assert_adds_up(made)


def test_resuming_clears_the_reason(world: Any) -> None:
    made = world.batch()
    with world.database.begin() as conn:
        control.pause(conn, made.id, "lunch", world.now)
        resumed = control.resume(conn, made.id, world.now)
    assert (resumed.state, resumed.reason) == (BatchState.ACTIVE, None)
    assert len(world.dispatch(made)) == 3


def test_a_batch_is_held_once_by_many_jobs(world: Any) -> None:
    made = world.batch()
    with world.database.begin() as conn:
        assert control.hold(conn, made.id, "spend cap until May", world.now, by=PausedBy.SPEND_CAP)
        assert not control.hold(conn, made.id, "spend cap, again", world.now, by=PausedBy.SPEND_CAP)
        control.cancel(conn, made.id, world.now)
        assert not control.hold(conn, made.id, "too late", world.now, by=PausedBy.SPEND_CAP)
    assert world.row(made).reason is None


def test_what_went_on_since_an_account_rests_is_not_paused_for_it(world: Any) -> None:
    resumed, fresh = world.batch(1), world.batch(1)
    elsewhere = world.batch(1, endpoint="http://127.0.0.1:8")
    since = world.now
    with world.database.begin() as conn:
        assert batches.last_resumed(conn, fresh.id) is None
        control.pause(conn, resumed.id, "cap", world.now, by=PausedBy.SPEND_CAP)
        went_on = world.tick(1)
        control.resume(conn, resumed.id, went_on)
        assert batches.last_resumed(conn, fresh.id) == went_on
        assert batches.last_resumed(conn, elsewhere.id) is None
        held = {
            each.id: control.hold(conn, each.id, "cap", world.now, by=PausedBy.SPEND_CAP, since=since)
            for each in (resumed, fresh)
        }
        assert held == {resumed.id: False, fresh.id: True}
        later = world.tick(1)
        assert control.hold(conn, resumed.id, "cap", later, by=PausedBy.SPEND_CAP, since=later)


def test_canceling_ends_what_waits_and_lets_finish_what_runs(world: Any) -> None:
    made = world.batch(4)
    [lease] = world.running(made, 1)
    world.dispatch(made, 1)
    with world.database.begin() as conn:
        canceling = control.cancel(conn, made.id, world.now)
    assert (canceling.state, canceling.canceled) == (BatchState.CANCELING, 3)
    world.assert_adds_up(made)
    assert world.complete(lease) == {lease.job_id}
    ended = world.row(made)
    assert (ended.state, ended.succeeded, ended.canceled) == (BatchState.ENDED, 1, 3)
    world.assert_adds_up(made)


def test_canceling_takes_jobs_that_wait_for_their_time_as_well(world: Any) -> None:
    made = world.batch(1)
    world.defer(*world.running(made))
    with world.database.begin() as conn:
        assert control.cancel(conn, made.id, world.now).state is BatchState.ENDED
    world.assert_adds_up(made)


def test_a_job_deferred_in_a_canceled_batch_is_canceled(world: Any) -> None:
    made = world.batch(1)
    [lease] = world.running(made)
    with world.database.begin() as conn:
        control.cancel(conn, made.id, world.now)
    assert world.defer(lease) == {lease.job_id}
    assert (world.row(made).state, world.row(made).canceled) == (BatchState.ENDED, 1)
    world.assert_adds_up(made)


def test_a_large_batch_is_canceled_in_several_goes(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("promptmill.store.waiting.MOST_AT_ONCE", 4)
    made = world.batch(10)
    [lease] = world.running(made, 1)
    queued = world.dispatch(made, 6)  # more than are canceled at once
    with world.database.begin() as conn:
        canceling = control.cancel(conn, made.id, world.now)
    assert (canceling.state, canceling.canceled) == (BatchState.CANCELING, 4)
    assert world.begin(queued) == []
    assert world.dispatch(made) == []
    with world.database.begin() as conn:
        assert [jobs.expire_overdue(conn, world.now) for _ in range(3)] == [4, 1, 0]
    world.assert_adds_up(made)
    world.complete(lease)
    assert (world.row(made).state, world.row(made).canceled) == (BatchState.ENDED, 9)
    world.assert_adds_up(made)


def test_a_batch_that_is_still_read_can_be_canceled(world: Any) -> None:
    made = world.admitting(2)
    with world.database.begin() as conn:
        ended = control.cancel(conn, made.id, world.now)
    assert (ended.state, ended.canceled, ended.sealed_at) == (BatchState.ENDED, 2, None)
    world.assert_adds_up(made)


CONTROLS = {
    "seal": (BatchState.ADMITTING, BatchState.ACTIVE, control.seal),
    "pause": (BatchState.ACTIVE, BatchState.PAUSED, lambda c, i, now: control.pause(c, i, "why", now)),
    "resume": (BatchState.PAUSED, BatchState.ACTIVE, control.resume),
    "cancel": (None, BatchState.CANCELING, control.cancel),
}


@pytest.mark.parametrize("change", CONTROLS)
@pytest.mark.parametrize("current", list(BatchState))
def test_only_the_changes_of_the_state_table_are_made(world: Any, change: str, current: BatchState) -> None:
    only_from, target, act = CONTROLS[change]
    made = _batch_in(world, current)
    allowed = target in BATCH_CHANGES[current] and only_from in (None, current)
    with world.database.begin() as conn:
        if allowed:
            assert act(conn, made.id, world.now).state in (target, BatchState.ENDED)
        else:
            with pytest.raises(InvalidTransition):
                act(conn, made.id, world.now)
            assert batches.get(conn, made.id).state is current


def _batch_in(world: Any, state: BatchState) -> Any:
    """A batch in that state, with one job running where that can be."""
    if state is BatchState.ADMITTING:
        return world.admitting()
    if state is BatchState.ENDED:
        return world.batch(0)
    made = world.batch()
    world.running(made, 1)
    with world.database.begin() as conn:
        if state is BatchState.PAUSED:
            control.pause(conn, made.id, "lunch", world.now)
        if state is BatchState.CANCELING:
            control.cancel(conn, made.id, world.now)
    return made


@pytest.mark.parametrize("act", [change[2] for change in CONTROLS.values()])
def test_control_of_an_unknown_batch_finds_none(world: Any, act: Any) -> None:
    with world.database.begin() as conn, pytest.raises(NotFound):
        act(conn, "batch_none", world.now)
