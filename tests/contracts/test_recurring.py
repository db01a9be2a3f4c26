"""What schedules owe, on both databases: each due time is one batch, whoever looks, dies half-way, and comes again."""

import json
import os
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from promptmill.claude.endpoints import Endpoint
from promptmill.clock import SystemClock
from promptmill.errors import InvalidInput, NotFound
from promptmill.intake.options import SubmitOptions
from promptmill.intake.recurring import Occasion, Recurring
from promptmill.recurrence import Due, Missed, Overlap, RunState, ScheduleState, Timetable
from promptmill.runtime import Runtime
from promptmill.settings import load
from promptmill.states import BatchState
from promptmill.store import batches, control, schedule_runs, schedules, tables
from promptmill.store.batches import NewBatch
from promptmill.store.database import Database, database_now
from promptmill.store.schedule_runs import RunRow
from promptmill.store.schedules import NewSchedule, ScheduleRow
from workers import recurring, run_process
from workers.recurring import RecurringRuns
from workers.run_submission import MOST_TRIES, RunSubmission

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

    def look(self) -> int:
        """A worker looks, and its processes end."""
        worker = self.worker()
        taken = worker.look()
        finish(worker)
        return taken

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
            return list(reversed(schedule_runs.runs_of(conn, schedule.id, limit=100)))

    def find(self, name: str = "news") -> ScheduleRow:
        with self.database.read() as conn:
            return schedules.find(conn, name)

    def let_pass(self, *, days: int) -> None:
        """As if the one run there is were so old, and its schedule had a due time 20 s ago again."""
        ago = timedelta(days=days)
        with self.database.begin() as conn:
            [schedule] = schedules.list_all(conn)
            [run] = schedule_runs.runs_of(conn, schedule.id)
            assert schedule.next_due is not None
            assert run.try_after is not None
            times = {"due_at": run.due_at, "created_at": run.created_at, "try_after": run.try_after}
            older = {name: moment - ago for name, moment in times.items()}
            conn.execute(update(tables.schedule_run).values(older))
            schedules.advance(conn, schedule.id, schedule.next_due - timedelta(seconds=EVERY_S))

    def begin_batch(self, schedule: ScheduleRow) -> str:
        """What a process leaves that was killed while it stored the rows of the latest due time, or of the first."""
        runs = self.runs(schedule)
        due = runs[-1].due_at if runs else schedule.next_due
        assert due is not None
        occasion = Occasion(schedule.name, due.astimezone(schedule.timetable.zone))
        new = NewBatch(
            name=f"news-{occasion.run}", model=OPTIONS.model or "", shared={}, endpoint="simulated",
            simulated=True, tags=occasion.tags, content_hash="of another file",
        )  # fmt: skip
        with self.database.begin() as conn:
            return batches.create(conn, new, self.now()).id

    def try_all_again_now(self) -> None:
        """As if the time had passed after which a run may be taken up again."""
        with self.database.begin() as conn:
            conn.exec_driver_sql("UPDATE schedule_run SET try_after = created_at WHERE try_after IS NOT NULL")


def finish(worker: RecurringRuns) -> None:
    """Wait for its processes."""
    while worker.processes:
        time.sleep(0.02)
        worker.tend()


@pytest.fixture
def world(database: Database, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("PROMPTMILL_DATABASE_URL", database_url)  # for processes
    return World(database, tmp_path)


def test_a_due_time_becomes_a_batch_that_is_named_after_it(world: World) -> None:
    schedule = world.add()

    assert world.look() == 1

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
        taken.append(world.look())

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    world.look()

    runs = world.runs(schedule)
    assert [run.state for run in runs] == [RunState.SUBMITTED] * 10
    assert len({run.batch_id for run in runs}) == 10
    assert [later.due_at - run.due_at for run, later in pairwise(runs)] == [timedelta(seconds=EVERY_S)] * 9


def test_of_several_that_were_missed_only_the_latest_is_run_and_it_says_so(world: World) -> None:
    schedule = world.add(missed_times=3)

    world.look()

    [run] = world.runs(schedule)
    assert run.state is RunState.SUBMITTED
    assert run.reason == "3 earlier due times were missed (--missed latest)"


def test_what_was_missed_long_ago_is_skipped_where_that_was_asked_for(world: World) -> None:
    starts_at = world.now() - timedelta(hours=3)
    schedule = world.add(missed=Missed.SKIP, timetable=Timetable(every_s=7200, starts_at=starts_at))

    assert world.look() == 0

    [run] = world.runs(schedule)
    assert (run.state, run.try_after) == (RunState.SKIPPED, None)
    assert run.reason is not None
    assert world.find().next_due == starts_at + timedelta(hours=4)


def test_a_due_time_at_which_the_former_batch_goes_on_is_skipped_where_that_was_asked_for(
    world: World,
) -> None:
    schedule = world.add(missed_times=1, missed=Missed.ALL, overlap=Overlap.SKIP)

    world.look()

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
        assert schedule_runs.take(conn, run, world.now() + timedelta(seconds=30), world.now())

    assert world.look() == 0  # somebody is at it
    world.try_all_again_now()
    assert world.look() == 1
    assert world.runs(schedule)[0].state is RunState.SUBMITTED


def test_a_batch_that_was_made_before_anybody_could_say_so_is_found_again_without_its_file(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = world.folder / "rows.jsonl"
    file.write_text(json.dumps({"prompt": "a"}) + "\n")
    schedule = world.add(what=Recurring(source=str(file), options=OPTIONS))
    with monkeypatch.context() as patch:
        patch.setattr(schedule_runs, "submitted", _die)
        with pytest.raises(KeyboardInterrupt):
            world.look()
    file.unlink()
    world.try_all_again_now()

    assert world.look() == 1

    [run] = world.runs(schedule)
    assert (run.state, run.tries, run.total) == (RunState.SUBMITTED, 2, 1)
    with world.database.read() as conn:
        assert len(batches.list_recent(conn)) == 1


def test_a_file_that_is_missing_is_a_failed_run_with_its_path_until_it_is_there(world: World) -> None:
    file = world.folder / "late.jsonl"
    schedule = world.add(what=Recurring(source=str(file), options=OPTIONS))

    world.look()

    [run] = world.runs(schedule)
    assert (run.state, run.reason) == (RunState.FAILED, f"{file}: there is no such file")
    assert run.try_after is not None
    file.write_text(json.dumps({"prompt": "a"}) + "\n")
    world.try_all_again_now()
    world.look()
    [run] = world.runs(schedule)
    assert (run.state, run.reason, run.tries) == (RunState.SUBMITTED, None, 2)


def test_a_failed_run_is_given_up_when_the_next_due_time_comes_first(world: World) -> None:
    starts_at = world.now() - timedelta(seconds=3)
    schedule = world.add(
        what=Recurring(source="/nowhere", options=OPTIONS),
        timetable=Timetable(every_s=2, starts_at=starts_at),
    )

    world.look()

    assert [(run.state, run.try_after) for run in world.runs(schedule)] == [(RunState.FAILED, None)]


def test_a_name_that_another_batch_has_is_a_failed_run_and_not_the_batch_of_somebody_else(
    world: World,
) -> None:
    options = SubmitOptions(model="claude-haiku-5-5", name="always the same")
    schedule = world.add(missed_times=1, missed=Missed.ALL, what=Recurring(prompts=("a",), options=options))

    world.look()

    first, second = world.runs(schedule)
    assert (first.state, second.state) == (RunState.SUBMITTED, RunState.FAILED)
    assert "put {{ date }} or {{ run }} into the name" in str(second.reason)


def test_a_large_file_is_submitted_by_a_process_of_its_own(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recurring, "SMALL_BYTES", 10)
    file = world.folder / "large.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"{n}"}) + "\n" for n in range(50)))
    schedule = world.add(what=Recurring(source=str(file), options=OPTIONS))

    world.look()

    [run] = world.runs(schedule)
    assert (run.state, run.total) == (RunState.SUBMITTED, 50)
    assert world.told == 1


def test_a_process_that_comes_to_nothing_is_a_failed_run(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recurring, "SMALL_BYTES", 10)
    monkeypatch.setattr(run_process, "_PROGRAM", "import os; os.kill(os.getpid(), 9)")
    file = world.folder / "large.jsonl"
    file.write_text(json.dumps({"prompt": "a"}) + "\n")
    schedule = world.add(what=Recurring(source=str(file), options=OPTIONS))

    world.look()

    [run] = world.runs(schedule)
    assert (run.state, run.reason) == (
        RunState.FAILED,
        "the process that reads the file was ended by signal 9, see the worker's log",
    )


def test_of_a_paused_schedule_only_what_a_person_asks_for_is_run(world: World) -> None:
    schedule = world.add()
    with world.database.begin() as conn:
        schedules.set_state(conn, schedule.id, ScheduleState.PAUSED, schedule.next_due, world.now())
        assert schedule_runs.record(conn, schedule.id, Due(world.now()), world.now(), manual=True)

    assert world.look() == 1
    assert [run.manual for run in world.runs(schedule)] == [True]


def test_a_due_time_is_recorded_once(world: World) -> None:
    schedule, due = world.add(), Due(world.now())

    with world.database.begin() as conn:
        recorded = [schedule_runs.record(conn, schedule.id, due, world.now()) for _ in range(3)]

    assert recorded == [True, False, False]


def test_who_was_too_slow_changes_nothing(world: World) -> None:
    schedule = world.add()
    world.look()
    [run] = world.runs(schedule)

    with world.database.begin() as conn:
        schedule_runs.failed(conn, run, "too late", None, world.now())
        schedule_runs.keep(conn, run, world.now())
        assert not schedule_runs.take(conn, run, world.now(), world.now())

    assert world.runs(schedule) == [run]


def test_the_name_of_a_schedule_is_its_own(world: World) -> None:
    world.add()

    with pytest.raises(InvalidInput, match="there is a schedule named 'news' already"):
        world.add()


def test_a_schedule_that_is_removed_takes_its_runs_along_and_leaves_its_batches(world: World) -> None:
    schedule = world.add()
    world.look()

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
    monkeypatch.setattr(run_process, "_PROGRAM", "import time; time.sleep(60)")
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


def test_a_failed_run_of_a_pause_is_tried_no_more(world: World) -> None:
    file = world.folder / "late.jsonl"
    schedule = world.add(what=Recurring(source=str(file), options=OPTIONS))
    world.look()
    file.write_text(json.dumps({"prompt": "a"}) + "\n")

    with world.database.begin() as conn:
        closed = schedule_runs.close_idle(conn, schedule.id, "paused", world.now())

    [run] = world.runs(schedule)
    assert closed == [run.due_at]
    assert (run.state, run.try_after) == (RunState.FAILED, None)
    assert "no such file" in str(run.reason)
    assert world.look() == 0


def test_the_next_due_time_takes_the_place_of_a_run_that_failed_also_where_runs_must_not_overlap(
    world: World,
) -> None:
    file = world.folder / "late.jsonl"
    schedule = world.add(what=Recurring(source=str(file), options=OPTIONS), overlap=Overlap.SKIP)
    world.look()
    file.write_text(json.dumps({"prompt": "a"}) + "\n")
    world.let_pass(days=3)

    world.look()

    old, new = world.runs(schedule)
    assert (old.state, old.try_after, new.state) == (RunState.FAILED, None, RunState.SUBMITTED)


def test_a_run_that_nobody_took_for_days_is_skipped_for_the_latest(world: World) -> None:
    schedule = world.add()
    world.worker()._record_due()
    world.let_pass(days=3)

    world.look()

    old, new = world.runs(schedule)
    assert (old.state, new.state) == (RunState.SKIPPED, RunState.SUBMITTED)
    assert old.reason == "nobody submitted it before the next due time came"


def test_where_every_due_time_is_wanted_one_that_nobody_took_for_days_is_run(world: World) -> None:
    schedule = world.add(missed=Missed.ALL)
    world.worker()._record_due()
    world.let_pass(days=3)

    world.look()

    assert world.runs(schedule)[0].state is RunState.SUBMITTED


@pytest.mark.parametrize("manual", [False, True])
def test_what_is_paused_while_another_run_is_under_way_is_not_taken(world: World, manual: bool) -> None:
    schedule, due = world.add(), Due(world.now())
    with world.database.begin() as conn:
        schedule_runs.record(conn, schedule.id, due, world.now(), manual=manual)
        [run] = schedule_runs.open_runs(conn, "simulated", world.now())

        schedules.set_state(conn, schedule.id, ScheduleState.PAUSED, None, world.now())

        taken = schedule_runs.take(conn, run, world.now() + timedelta(seconds=30), world.now())
        assert (taken is not None) is manual


def test_while_a_process_is_at_work_other_runs_are_recorded_and_submitted(
    world: World, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None]
) -> None:
    monkeypatch.setattr(run_process, "_PROGRAM", "import time; time.sleep(60)")
    file = world.folder / "packed.jsonl.gz"
    file.write_bytes(b"")
    world.add("big", what=Recurring(source=str(file), options=OPTIONS))
    worker = world.worker()
    worker.start()
    try:
        worker.wake()
        wait_until(lambda: worker.processes)
        schedule = world.add("quick")
        worker.wake()
        wait_until(lambda: [run.state for run in world.runs(schedule)] == [RunState.SUBMITTED])
    finally:
        worker.stop()


def test_there_are_only_so_many_processes_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recurring, "MOST_PROCESSES", 1)
    monkeypatch.setattr(run_process, "_PROGRAM", "import time; time.sleep(60)")
    computed = Recurring(prompts=("{% if 1 %}a{% endif %}",), options=OPTIONS)
    for name in ("one", "two"):
        world.add(name, what=computed)
    worker = world.worker()

    assert (worker.look(), worker.look(), len(worker.processes)) == (1, 0, 1)

    worker.stop()


def test_a_process_that_gets_on_no_more_is_ended_and_its_run_has_failed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_process, "STUCK_S", 0.1)
    monkeypatch.setattr(run_process, "_PROGRAM", "import time; time.sleep(60)")
    schedule = world.add(what=Recurring(prompts=("{% if 1 %}a{% endif %}",), options=OPTIONS))

    world.look()

    [run] = world.runs(schedule)
    assert (run.state, run.reason) == (
        RunState.FAILED,
        "the process that reads the file got on no more, and was ended",
    )


@pytest.mark.parametrize("path", ["pipe", "/dev/zero"])
def test_what_has_no_end_is_refused(world: World, path: str) -> None:
    os.mkfifo(world.folder / "pipe")
    schedule = world.add(what=Recurring(source=path, folder=str(world.folder), options=OPTIONS))

    world.look()

    [run] = world.runs(schedule)
    assert (run.state, run.reason) == (RunState.FAILED, f"{world.folder / path}: no regular file")


def test_a_file_system_that_does_not_answer_holds_up_neither_others_nor_the_end(
    world: World, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None]
) -> None:
    answers = threading.Event()
    monkeypatch.setattr(recurring, "STAT_S", 0.05)
    monkeypatch.setattr(recurring, "_is_small", lambda _path: answers.wait())
    monkeypatch.setattr(run_process, "_PROGRAM", "import time; time.sleep(60)")
    world.add("away", what=Recurring(source="/away/rows.jsonl", options=OPTIONS))
    schedule, worker = world.add("here"), world.worker()
    worker.start()
    worker.wake()

    wait_until(lambda: [run.state for run in world.runs(schedule)] == [RunState.SUBMITTED])

    worker.stop()
    answers.set()


def test_a_run_whose_tries_all_end_without_a_word_is_given_up(world: World) -> None:
    schedule = world.add()
    world.worker()._record_due()
    for _ in range(MOST_TRIES):
        [run] = world.runs(schedule)
        with world.database.begin() as conn:
            assert schedule_runs.take(conn, run, world.now(), world.now())

    assert world.look() == 0

    [run] = world.runs(schedule)
    assert (run.state, run.try_after) == (RunState.FAILED, None)
    assert "given up after 5 tries" in str(run.reason)


def test_who_lost_a_run_changes_nothing_of_it(world: World) -> None:
    schedule = world.add()
    world.worker()._record_due()
    [run] = world.runs(schedule)
    with world.database.begin() as conn:
        first = schedule_runs.take(conn, run, world.now(), world.now())
        assert first is not None
        second = schedule_runs.take(conn, first, world.now() + timedelta(seconds=30), world.now())

        assert not schedule_runs.keep(conn, first, world.now())
        assert not schedule_runs.failed(conn, first, "late", None, world.now())
        schedule_runs.submitted(conn, first, "batch_x", world.now())

    [run] = world.runs(schedule)
    assert run == second


def test_a_batch_that_was_begun_with_another_file_is_canceled_and_made_anew(world: World) -> None:
    file = world.folder / "rows.jsonl"
    file.write_text(json.dumps({"prompt": "new"}) + "\n")
    schedule = world.add(what=Recurring(source=str(file), options=OPTIONS))
    half = world.begin_batch(schedule)

    world.look()

    [run] = world.runs(schedule)
    assert (run.state, run.reason, run.total) == (RunState.SUBMITTED, None, 1)
    with world.database.read() as conn:
        assert batches.get(conn, half).state is BatchState.ENDED
        assert batches.get(conn, half).name == f"{run.batch_name}-cut-{half[-8:]}"


def test_a_run_that_is_given_up_leaves_no_half_of_a_batch(world: World) -> None:
    file = world.folder / "late.jsonl"
    schedule = world.add(what=Recurring(source=str(file), options=OPTIONS))
    world.look()
    world.let_pass(days=1)
    half = world.begin_batch(schedule)

    world.worker()._record_due()

    with world.database.read() as conn:
        assert batches.get(conn, half).state is BatchState.ENDED


def test_due_times_of_long_ago_are_forgotten_unless_their_batches_go_on(world: World) -> None:
    schedule = world.add(missed_times=5, missed=Missed.ALL)
    world.look()
    runs = world.runs(schedule)
    with world.database.begin() as conn:
        for run in runs[1:]:
            control.cancel(conn, str(run.batch_id), world.now())

        assert schedule_runs.forget_old(conn, schedule.id, kept=3) == 2

    assert world.runs(schedule) == [runs[0], *world.runs(schedule)[1:]]
    assert [run.due_at for run in world.runs(schedule)] == [run.due_at for run in (runs[0], *runs[3:])]


def _die(*_: Any) -> None:
    raise KeyboardInterrupt
