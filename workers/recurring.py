"""Recurring runs: due times that have come get their rows, and each row its batch.

The one idea: beat, the leader and a person only wake this up; what is owed is read from the table by the database's
time. So a wake-up that is lost, late or comes twice costs time alone.

It has a thread of its own: the event loop answers prompts, and the leader must not wait for a file. What may take long
is submitted by a process of its own, while the thread goes on with the others: a large or packed file, a template that
computes, and whatever a former try came to nothing with. Reading a million rows takes minutes of Python, which would
take every second turn from the loop. What is small is not worth the second that a process costs.
"""

import stat
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from promptmill.errors import InvalidInput, Unavailable
from promptmill.intake.recurring import Recurring
from promptmill.logs import get_logger, where
from promptmill.recurrence import Due, Overlap, RunState, ScheduleState, owed
from promptmill.runtime import Runtime
from promptmill.store import Connection, schedule_runs, schedules
from promptmill.store.database import database_now
from promptmill.store.schedule_runs import RunRow
from promptmill.store.schedules import ScheduleRow
from workers.run_process import RunProcess
from workers.run_submission import (
    KEPT_EVERY_S,
    MOST_TRIES,
    TAKEN_FOR,
    RunSubmission,
    end_badly,
    fail,
    is_superseded,
    occasion_of,
)

log = get_logger(__name__)

SMALL_BYTES = 1_000_000
MOST_PROCESSES = 2
"""At once; further runs wait, or another worker takes them."""
LOOK_S = 0.5
"""Between two looks at processes."""
END_S = 5.0
STAT_S = 2.0
"""For a file system to say how large a file is."""
_PACKED = (".gz", ".zst", ".parquet")


@dataclass(slots=True)
class RecurringRuns:
    """Plans and submits what is due, on a thread that sleeps until it is woken."""

    runtime: Runtime
    submission: RunSubmission
    tell_dispatcher: Callable[[], None]
    processes: list[RunProcess] = field(default_factory=list)
    _given_up: list[tuple[RunRow, RunRow]] = field(default_factory=list)
    _asking: threading.Thread | None = None
    _woken: threading.Event = field(default_factory=threading.Event)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to listen."""
        self._thread = threading.Thread(target=self._run, name="promptmill-recurring", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Look soon at what is due; from any thread, and as often as one likes."""
        self._woken.set()

    def step_down(self) -> None:
        """Take up nothing more; processes are asked to end, and their runs go on elsewhere. Does not wait."""
        self._stopping.set()
        self._woken.set()

    def stop(self) -> None:
        """Step down, and wait for what is under way; not for ever, because a file system may be away."""
        self.step_down()
        if self._thread is not None:
            self._thread.join(2 * END_S)
        for each in list(self.processes):
            each.end(0.0)

    def look(self) -> int:
        """Record the due times that have come, and take up every run that may be; how many were taken.

        Raises:
            Unavailable: the database is away.
        """
        self._give_back()
        self._record_due()
        with self.runtime.database.read() as conn:
            waiting = schedule_runs.open_runs(conn, self.runtime.endpoint_name, database_now(conn))
        taken = 0
        for run in waiting:
            if self._stopping.is_set():
                break
            taken += self._take_up(run)
        return taken

    def tend(self) -> bool:
        """Look after the processes; whether one has ended.

        Raises:
            Unavailable: the database is away.
        """
        ended = [each for each in list(self.processes) if self._has_ended(each)]
        if ended:
            self.tell_dispatcher()
        return bool(ended)

    def _run(self) -> None:
        while not self._stopping.is_set():
            woken = self._woken.wait(LOOK_S if self.processes else None)
            self._woken.clear()
            try:
                if (self.tend() or woken) and not self._stopping.is_set():
                    self.look()
            except Unavailable as error:
                log.warning("recurring_waits", error=str(error))
            except Exception as error:  # noqa: BLE001  # the next look may go well
                log.error("recurring_failed", **where(error))  # noqa: TRY400  # its text may quote a row
        self._leave()

    def _leave(self) -> None:
        for each in self.processes:
            each.end(END_S)
            if not each.is_told:
                self._given_up.append((each.former, each.run))
        try:
            self._give_back()
        except Unavailable:
            log.info("runs_are_left", count=len(self._given_up))

    def _give_back(self) -> None:
        """What was taken and could not be done for no fault of its own is anybody's again."""
        while self._given_up:
            with self.runtime.database.begin() as conn:
                schedule_runs.give_back(conn, *self._given_up[-1], database_now(conn))
            self._given_up.pop()

    def _record_due(self) -> None:
        database = self.runtime.database
        with database.read() as conn:
            ids = schedules.due(conn, self.runtime.endpoint_name, database_now(conn))
        for schedule_id in ids:
            with database.begin() as conn:
                schedule = schedules.lock(conn, schedule_id)
                if schedule is not None and schedule.state is ScheduleState.ACTIVE:
                    _record(conn, schedule)

    def _take_up(self, former: RunRow) -> bool:
        database = self.runtime.database
        with database.read() as conn:
            schedule = schedules.find_by_id(conn, former.schedule_id)
        if schedule is None:
            return False
        in_a_process = self._needs_a_process(schedule, former)
        if in_a_process and len(self.processes) >= MOST_PROCESSES:
            return False
        with database.begin() as conn:
            now = database_now(conn)
            if is_superseded(schedule, former, now):
                _supersede(conn, schedule, former, now)
                return False
            run = schedule_runs.take(conn, former, now + TAKEN_FOR, now)
            if run is None:
                return False
            if former.state is RunState.WAITING and former.tries >= MOST_TRIES:
                end_badly(conn, schedule, run, _without_a_word(former.tries), again=None, now=now)
                return False
        if in_a_process:
            self.processes.append(RunProcess.start(schedule, former, run))
        else:
            self._submit(schedule, former, run)
        return True

    def _submit(self, schedule: ScheduleRow, former: RunRow, run: RunRow) -> None:
        try:
            if self.submission.submit(schedule, run) is not None:
                self.tell_dispatcher()
        except Unavailable:
            self._given_up.append((former, run))
            raise

    def _has_ended(self, of: RunProcess) -> bool:
        database = self.runtime.database
        if of.has_ended():
            if of.fault and not of.is_told:
                fail(database, of.schedule, of.run, of.fault)
            self.processes.remove(of)
            return True
        if of.is_told:
            return False
        if of.is_stuck:
            of.process.kill()
            fail(
                database, of.schedule, of.run, "the process that reads the file got on no more, and was ended"
            )
            of.is_told = True
        elif time.monotonic() - of.kept_at >= KEPT_EVERY_S:
            with database.begin() as conn:
                schedule_runs.keep(conn, of.run, database_now(conn) + TAKEN_FOR)
            of.kept_at = time.monotonic()
        return False

    def _needs_a_process(self, schedule: ScheduleRow, run: RunRow) -> bool:
        """Whether the submission of a run may take longer than a process costs to start, or may end this one."""
        try:
            recurring = Recurring.of(schedule.what)
            if run.tries or not recurring.is_plain:
                return True
            source = recurring.source_at(occasion_of(schedule, run))
        except InvalidInput:
            return False  # it fails, and quickly
        if isinstance(source, list):
            return False
        return source.lower().endswith(_PACKED) or not self._is_small(Path(source))

    def _is_small(self, path: Path) -> bool:
        """Whether it is, or is none at all. Who asks a file system that is away waits for ever, so somebody else does."""
        if self._asking is not None and self._asking.is_alive():
            return False
        answer: list[bool] = []
        self._asking = threading.Thread(target=lambda: answer.append(_is_small(path)), daemon=True)
        self._asking.start()
        self._asking.join(STAT_S)
        return answer == [True]


def _is_small(path: Path) -> bool:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return True
    return not stat.S_ISREG(found.st_mode) or found.st_size <= SMALL_BYTES


def _record(conn: Connection, schedule: ScheduleRow) -> None:
    now = database_now(conn)
    found = owed(schedule.timetable, schedule.next_due, now, schedule.missed)
    if found.due:
        for run in schedule_runs.idle(conn, schedule.id, now):
            if is_superseded(schedule, run, now):
                _supersede(conn, schedule, run, now)
    for each in found.due:
        due = each
        if schedule.overlap is Overlap.SKIP and each.skipped is None:
            former = schedule_runs.still_goes_on(conn, schedule.id)
            if former is not None:
                due = Due(each.at, skipped=f"the run of {former:%Y-%m-%d %H:%M:%S} UTC has not ended")
        if schedule_runs.record(conn, schedule.id, due, now) and due.skipped is not None:
            log.warning("run_skipped", schedule=schedule.name, due_at=str(due.at), why=due.skipped)
    schedules.advance(conn, schedule.id, found.next_due)
    schedule_runs.forget_old(conn, schedule.id)


def _supersede(conn: Connection, schedule: ScheduleRow, run: RunRow, now: datetime) -> None:
    why = "nobody submitted it before the next due time came"
    if schedule_runs.close_idle(conn, schedule.id, why, now, only=run):
        schedule_runs.cancel_half(conn, occasion_of(schedule, run).tags, now)
        log.warning("run_superseded", schedule=schedule.name, due_at=str(run.due_at))


def _without_a_word(tries: int) -> str:
    return (
        f"given up after {tries} tries: the last ended without a word, as when the worker is killed "
        "(out of memory?); see its log, and split the file"
    )
