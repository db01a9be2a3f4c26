"""What schedules owe, on both databases: each due time is one batch, whoever looks, dies half-way, and comes again."""

import json
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from promptmill.claude.endpoints import Endpoint
from promptmill.clock import SystemClock
from promptmill.errors import InvalidInput, NotFound
from promptmill.intake.options import SubmitOptions
from promptmill.intake.recurring import Recurring
from promptmill.recurrence import Due, Missed, Overlap, RunState, ScheduleState, Timetable
from promptmill.runtime import Runtime
from promptmill.settings import load
from promptmill.store import batches, schedules
from promptmill.store.database import Database, database_now
from promptmill.store.schedules import NewSchedule, RunRow, ScheduleRow
from workers import recurring
from workers.recurring import RecurringRuns
from workers.run_submission import RunSubmission

EVERY_S = 60
OPTIONS = SubmitOptions(model="claude-haiku-5-5")


class World:
    """A database, and workers that look at what is owed when they are told to."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.folder = folder
        self.told = 0

    def worker(self, *, simulated: bool = True) -> RecurringRuns:
        runtime = Runtime(load(), self.database)
        runtime.endpoint = Endpoint("http://127.0.0.1:9", simulated)
        return RecurringRuns(runtime, RunSubmission(runtime, SystemClock()), self._tell)

    def _tell(self) -> None:
        self.told += 1

    def now(self) -> datetime:
        with self.database.read() as conn:
            return database_now(conn)

    def add(self, name: str = "news", *, missed_times: int = 0, **changes: Any) -> ScheduleRow:
        """A schedule of every minute whose last due time was 20 s ago, and that many before it."""
        ago = timedelta(seconds=20 + EVERY_S * missed_times)
        what = changes.pop("what", Recurring(prompts=("It is {{ run }}",), options=OPTIONS))
        values: dict[str, Any] = {
            "timetable": Timetable(
                every_s=EVERY_S, starts_at=self.now() - ago - timedelta(seconds=EVERY_S), timezone="Asia/Shanghai"
            ),
            "missed": Missed.LATEST, "overlap": Overlap.ALLOW, "endpoint": "simulated", "simulated": True,
            "what": what.document(),
        }  # fmt: skip
        values |= changes
        first = values["timetable"].after(values["timetable"].starts_at)
        with self.database.begin() as conn:
            return schedules.add(conn, NewSchedule(name=name, next_due=first, **values), self.now())

    def runs(self, schedule: ScheduleRow) -> list[RunRow]:
        """All of them, the oldest first."""
        with self.database.read() as conn:
            return list(reversed(schedules.runs_of(conn, schedule.id, limit=100)))

    def find(self, name: str = "news") -> ScheduleRow:
        with self.database.read() as conn:
            return schedules.find(conn, name)

    def try_all_again_now(self) -> None:
        """As if the time had passed after which a run may be taken up again."""
        with self.database.begin() as conn:
            conn.exec_driver_sql("UPDATE schedule_run SET try_after = created_at WHERE try_after IS NOT NULL")


@pytest.fixture
def world(database: Database, tmp_path: Path) -> Iterator[World]:
    return World(database, tmp_path)


def test_a_due_time_becomes_a_batch_that_is_named_after_it(world: World) -> None:
    schedule = world.add()

    assert world.worker().look() == 1

    [run] = world.runs(schedule)
    assert (run.state, run.total, run.batch_state) == (RunState.SUBMITTED, 1, "active")
    assert run.due_at == schedule.next_due
    stamp = run.due_at.astimezone(schedule.timetable.zone).strftime("%Y%m%dT%H%M%S+0800")
    assert run.batch_name == f"news-{stamp}"
    assert world.find().next_due == run.due_at + timedelta(seconds=EVERY_S)
    assert world.told == 1
    with world.database.read() as conn:
        batch = batches.find(conn, run.batch_name)
    assert (batch.tags["schedule"], batch.simulated, batch.endpoint) == ("news", True, "simulated")


def test_who_looks_again_finds_nothing_to_do(world: World) -> None:
    schedule, worker = world.add(), world.worker()

    assert [worker.look() for _ in range(3)] == [1, 0, 0]
    assert len(world.runs(schedule)) == 1


def test_of_many_who_look_at_once_one_has_each_due_time(world: World) -> None:
    schedule = world.add(missed_times=9, missed=Missed.ALL)
    start, taken = threading.Barrier(4), []

    def look() -> None:
        start.wait()
        taken.append(world.worker().look())

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    world.worker().look()

    runs = world.runs(schedule)
    assert [run.state for run in runs] == [RunState.SUBMITTED] * 10
    assert len({run.batch_id for run in runs}) == 10
    assert [later.due_at - run.due_at for run, later in pairwise(runs)] == [timedelta(seconds=EVERY_S)] * 9


def test_of_several_that_were_missed_only_the_latest_is_run_and_it_says_so(world: World) -> None:
    schedule = world.add(missed_times=3)

    world.worker().look()

    [run] = world.runs(schedule)
    assert run.state is RunState.SUBMITTED
    assert run.reason == "3 due times were before it missed, for which there is no run"


def test_what_was_missed_long_ago_is_skipped_where_that_was_asked_for(world: World) -> None:
    starts_at = world.now() - timedelta(hours=3)
    schedule = world.add(missed=Missed.SKIP, timetable=Timetable(every_s=7200, starts_at=starts_at))

    assert world.worker().look() == 0

    [run] = world.runs(schedule)
    assert (run.state, run.try_after) == (RunState.SKIPPED, None)
    assert run.reason is not None
    assert world.find().next_due == starts_at + timedelta(hours=4)


def test_a_due_time_at_which_the_former_batch_goes_on_is_skipped_where_that_was_asked_for(
    world: World,
) -> None:
    schedule = world.add(missed_times=1, missed=Missed.ALL, overlap=Overlap.SKIP)

    world.worker().look()

    assert [run.state for run in world.runs(schedule)] == [RunState.SUBMITTED, RunState.SKIPPED]
    assert "has not ended" in str(world.runs(schedule)[1].reason)


def test_a_worker_of_another_endpoint_leaves_it_alone(world: World) -> None:
    schedule = world.add()

    assert world.worker(simulated=False).look() == 0
    assert world.runs(schedule) == []


def test_what_a_killed_worker_had_taken_is_taken_up_by_another(world: World) -> None:
    schedule, worker = world.add(), world.worker()
    worker._record_due()
    [run] = world.runs(schedule)
    with world.database.begin() as conn:
        assert schedules.take(conn, run, world.now() + timedelta(seconds=30), world.now())

    assert world.worker().look() == 0  # somebody is at it
    world.try_all_again_now()
    assert world.worker().look() == 1
    assert world.runs(schedule)[0].state is RunState.SUBMITTED


def test_a_batch_that_was_made_before_anybody_could_say_so_is_found_again_without_its_file(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = world.folder / "rows.jsonl"
    file.write_text(json.dumps({"prompt": "a"}) + "\n")
    schedule = world.add(what=Recurring(source=str(file), options=OPTIONS))
    with monkeypatch.context() as patch:
        patch.setattr(schedules, "submitted", _die)
        with pytest.raises(KeyboardInterrupt):
            world.worker().look()
    file.unlink()
    world.try_all_again_now()

    assert world.worker().look() == 1

    [run] = world.runs(schedule)
    assert (run.state, run.tries, run.total) == (RunState.SUBMITTED, 2, 1)
    with world.database.read() as conn:
        assert len(batches.list_recent(conn)) == 1


def test_a_file_that_is_missing_is_a_failed_run_with_its_path_until_it_is_there(world: World) -> None:
    file = world.folder / "late.jsonl"
    schedule = world.add(what=Recurring(source=str(file), options=OPTIONS))

    world.worker().look()

    [run] = world.runs(schedule)
    assert (run.state, run.reason) == (RunState.FAILED, f"{file}: there is no such file")
    assert run.try_after is not None
    file.write_text(json.dumps({"prompt": "a"}) + "\n")
    world.try_all_again_now()
    world.worker().look()
    [run] = world.runs(schedule)
    assert (run.state, run.reason, run.tries) == (RunState.SUBMITTED, None, 2)


def test_a_failed_run_is_given_up_when_the_next_due_time_comes_first(world: World) -> None:
    starts_at = world.now() - timedelta(seconds=3)
    schedule = world.add(
        what=Recurring(source="/nowhere", options=OPTIONS),
        timetable=Timetable(every_s=2, starts_at=starts_at),
    )

    world.worker().look()

    assert [(run.state, run.try_after) for run in world.runs(schedule)] == [(RunState.FAILED, None)]


def test_a_name_that_another_batch_has_is_a_failed_run_and_not_the_batch_of_somebody_else(
    world: World,
) -> None:
    options = SubmitOptions(model="claude-haiku-5-5", name="always the same")
    schedule = world.add(missed_times=1, missed=Missed.ALL, what=Recurring(prompts=("a",), options=options))

    world.worker().look()

    first, second = world.runs(schedule)
    assert (first.state, second.state) == (RunState.SUBMITTED, RunState.FAILED)
    assert "put {{ date }} or {{ run }} into the name" in str(second.reason)


def test_a_large_file_is_submitted_by_a_process_of_its_own(
    world: World, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    monkeypatch.setattr(recurring, "SMALL_BYTES", 10)
    monkeypatch.setenv("PROMPTMILL_DATABASE_URL", database_url)
    file = world.folder / "large.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"{n}"}) + "\n" for n in range(50)))
    schedule = world.add(what=Recurring(source=str(file), options=OPTIONS))

    world.worker().look()

    [run] = world.runs(schedule)
    assert (run.state, run.total) == (RunState.SUBMITTED, 50)
    assert world.told == 1


def test_a_process_that_comes_to_nothing_is_a_failed_run(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recurring, "SMALL_BYTES", 10)
    monkeypatch.setattr(recurring, "_PROGRAM", "import os; os.kill(os.getpid(), 9)")
    file = world.folder / "large.jsonl"
    file.write_text(json.dumps({"prompt": "a"}) + "\n")
    schedule = world.add(what=Recurring(source=str(file), options=OPTIONS))

    world.worker().look()

    [run] = world.runs(schedule)
    assert (run.state, run.reason) == (
        RunState.FAILED,
        "the process that reads the file was ended by signal 9, see the worker's log",
    )


def test_of_a_paused_schedule_only_what_a_person_asks_for_is_run(world: World) -> None:
    schedule = world.add()
    with world.database.begin() as conn:
        schedules.set_state(conn, schedule.id, ScheduleState.PAUSED, schedule.next_due, world.now())
        assert schedules.record(conn, schedule.id, Due(world.now()), world.now(), manual=True)

    assert world.worker().look() == 1
    assert [run.manual for run in world.runs(schedule)] == [True]


def test_a_due_time_is_recorded_once(world: World) -> None:
    schedule, due = world.add(), Due(world.now())

    with world.database.begin() as conn:
        recorded = [schedules.record(conn, schedule.id, due, world.now()) for _ in range(3)]

    assert recorded == [True, False, False]


def test_who_was_too_slow_changes_nothing(world: World) -> None:
    schedule = world.add()
    world.worker().look()
    [run] = world.runs(schedule)

    with world.database.begin() as conn:
        schedules.failed(conn, run, "too late", None, world.now())
        schedules.keep(conn, run, world.now())
        assert not schedules.take(conn, run, world.now(), world.now())

    assert world.runs(schedule) == [run]


def test_the_name_of_a_schedule_is_its_own(world: World) -> None:
    world.add()

    with pytest.raises(InvalidInput, match="there is a schedule named 'news' already"):
        world.add()


def test_a_schedule_that_is_removed_takes_its_runs_along_and_leaves_its_batches(world: World) -> None:
    schedule = world.add()
    world.worker().look()

    with world.database.begin() as conn:
        schedules.remove(conn, schedule.id)

    with world.database.read() as conn:
        assert schedules.list_all(conn) == []
        assert len(batches.list_recent(conn)) == 1
        with pytest.raises(NotFound, match="there is none at all yet"):
            schedules.find(conn, "news")
    assert world.runs(schedule) == []


def test_the_thread_takes_up_what_it_is_woken_for(world: World, wait_until: Callable[..., None]) -> None:
    schedule, worker = world.add(), world.worker()
    worker.start()
    try:
        worker.wake()
        wait_until(lambda: [run.state for run in world.runs(schedule)] == [RunState.SUBMITTED])
    finally:
        worker.stop()


def test_a_worker_that_ends_ends_its_process_and_leaves_the_run_to_others(
    world: World, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None]
) -> None:
    monkeypatch.setattr(recurring, "SMALL_BYTES", 10)
    monkeypatch.setattr(recurring, "_PROGRAM", "import time; time.sleep(60)")
    file = world.folder / "large.jsonl"
    file.write_text(json.dumps({"prompt": "a"}) + "\n")
    schedule, worker = world.add(what=Recurring(source=str(file), options=OPTIONS)), world.worker()
    worker.start()
    worker.wake()
    wait_until(lambda: [run.tries for run in world.runs(schedule)] == [1])

    worker.stop()

    [run] = world.runs(schedule)
    assert run.state is RunState.WAITING
    assert run.try_after is not None


def _die(*_: Any) -> None:
    raise KeyboardInterrupt
