"""Jobs are admitted in chunks, and a submit that broke is simply repeated."""

import threading
from typing import Any

import pytest
from sqlalchemy import func, select

from promptmill.errors import InvalidInput, InvalidTransition, NotFound
from promptmill.states import JobState
from promptmill.store import batches, jobs
from promptmill.store.tables import job, prompt


def _admit(world: Any, made: Any, rows: Any) -> int:
    with world.database.begin() as conn:
        return jobs.insert_many(conn, made.id, rows, world.now)


def test_jobs_are_pending_in_the_order_of_the_file(world: Any) -> None:
    made = world.admitting(3)
    assert world.states(made) == dict.fromkeys(("row-0", "row-1", "row-2"), JobState.PENDING)
    assert world.row(made).total == 3


def test_a_repeated_submit_adds_only_what_is_missing(world: Any) -> None:
    made = world.admitting(3)
    assert _admit(world, made, [world.new_job(seq) for seq in range(5)]) == 2
    assert _admit(world, made, [world.new_job(seq) for seq in range(5)]) == 0
    assert list(world.states(made)) == [f"row-{seq}" for seq in range(5)]
    assert world.row(made).total == 5


def test_a_row_that_moved_in_the_file_is_still_the_same_row(world: Any) -> None:
    made = world.admitting(2)
    moved = [
        world.new_job(7, custom_id="row-1", fingerprint="print of 1"),
        world.new_job(8),
    ]
    assert _admit(world, made, moved) == 1
    assert list(world.states(made)) == ["row-0", "row-1", "row-8"]


def test_the_same_custom_id_with_another_prompt_is_refused_by_name(world: Any) -> None:
    made = world.admitting(3)
    with pytest.raises(InvalidInput, match=r"'row-1'.*another prompt"):
        _admit(world, made, [world.new_job(1, fingerprint="changed")])
    with pytest.raises(InvalidInput, match=r"'row-1'.*another prompt"):
        _admit(world, made, [world.new_job(9, custom_id="row-1")])


def test_a_custom_id_that_occurs_twice_is_refused_by_name(world: Any) -> None:
    made = world.admitting(0)
    with pytest.raises(InvalidInput, match="'same' occurs 2 times"):
        _admit(world, made, [world.new_job(0, custom_id="same"), world.new_job(1, custom_id="same")])
    assert world.row(made).total == 0


def test_a_place_that_is_taken_is_refused(world: Any) -> None:
    made = world.admitting(1)
    with pytest.raises(InvalidInput, match="taken"):
        _admit(world, made, [world.new_job(0, custom_id="other")])


def test_nothing_is_added_to_a_sealed_batch(world: Any) -> None:
    made = world.batch(2)
    assert _admit(world, made, [world.new_job(0), world.new_job(1)]) == 0
    with pytest.raises(InvalidTransition, match="sealed"):
        _admit(world, made, [world.new_job(2)])
    assert world.row(made).total == 2


def test_jobs_need_a_batch(world: Any) -> None:
    with pytest.raises(NotFound), world.database.begin() as conn:
        jobs.insert_many(conn, "batch_none", [world.new_job(0)], world.now)


def test_no_rows_are_no_jobs(world: Any) -> None:
    assert _admit(world, world.admitting(0), []) == 0


def test_two_submits_at_once_make_each_job_once(world: Any) -> None:
    made = world.admitting(0)
    added: list[int] = []

    def submit() -> None:
        for start in range(0, 40, 10):
            rows = [world.new_job(seq) for seq in range(start, start + 10)]
            added.append(_admit(world, made, rows))

    threads = [threading.Thread(target=submit) for _ in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sum(added) == 40
    assert world.row(made).total == len(world.states(made)) == 40


def test_a_broken_submit_leaves_no_job_without_its_prompt(world: Any) -> None:
    made = world.admitting(0)

    def break_off() -> None:
        with world.database.begin() as conn:
            jobs.insert_many(conn, made.id, [world.new_job(0)], world.now)
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        break_off()
    with world.database.read() as conn:
        assert conn.scalar(select(func.count()).select_from(job)) == 0
        assert conn.scalar(select(func.count()).select_from(prompt)) == 0
        assert batches.get(conn, made.id).total == 0
