"""Recurring runs: due times that have come get their rows, and each row its batch.

The one idea: beat, the leader and a person only wake this up; what is owed is read from the table by the database's
time. So a wake-up that is lost, late or comes twice costs time alone.

It has a thread of its own: the event loop answers prompts, and the leader must not wait for a file. A file that is not
small is submitted by a process of its own: reading a million rows takes minutes of Python, which would take every second
turn from the loop, and half a gigabyte of Parquet its memory. A small one is not worth the second that a process costs.
"""

import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from promptmill.errors import InvalidInput, Unavailable
from promptmill.intake.recurring import Recurring
from promptmill.logs import get_logger, where
from promptmill.recurrence import Due, Overlap, ScheduleState, owed
from promptmill.runtime import Runtime
from promptmill.store import Connection, schedules
from promptmill.store.database import database_now
from promptmill.store.schedules import RunRow, ScheduleRow
from workers.run_submission import TAKEN_FOR, RunSubmission, fail, occasion_of

log = get_logger(__name__)

SMALL_BYTES = 1_000_000
SMALL_PACKED_BYTES = 100_000
_PACKED = (".gz", ".parquet")
LOOK_S = 0.5
"""Between two looks at whether a process has ended, or this one is to."""
END_S = 5.0
_PROGRAM = "from workers.run_submission import main; main()"


@dataclass(slots=True)
class RecurringRuns:
    """Plans and submits what is due, on a thread that sleeps until it is woken."""

    runtime: Runtime
    submission: RunSubmission
    tell_dispatcher: Callable[[], None]
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
        """Take up nothing more; a process is asked to end, and its run goes on elsewhere. Does not wait."""
        self._stopping.set()
        self._woken.set()

    def stop(self) -> None:
        """Step down, and wait for what is under way."""
        self.step_down()
        if self._thread is not None:
            self._thread.join()

    def look(self) -> int:
        """Record the due times that have come, and submit every run that may be taken up; how many were taken.

        Raises:
            Unavailable: the database is away.
        """
        self._record_due()
        with self.runtime.database.read() as conn:
            waiting = schedules.open_runs(conn, self.runtime.endpoint_name, database_now(conn))
        taken = 0
        for run in waiting:
            if self._stopping.is_set():
                break
            taken += self._take_up(run)
        return taken

    def _run(self) -> None:
        while True:
            self._woken.wait()
            self._woken.clear()
            if self._stopping.is_set():
                return
            try:
                self.look()
            except Unavailable as error:
                log.warning("recurring_waits", error=str(error))
            except Exception as error:  # noqa: BLE001  # the next look may go well
                log.error("recurring_failed", **where(error))  # noqa: TRY400  # its text may quote a row

    def _record_due(self) -> None:
        database = self.runtime.database
        with database.read() as conn:
            ids = schedules.due(conn, self.runtime.endpoint_name, database_now(conn))
        for schedule_id in ids:
            with database.begin() as conn:
                schedule = schedules.lock(conn, schedule_id)
                if schedule is not None and schedule.state is ScheduleState.ACTIVE:
                    _record(conn, schedule)

    def _take_up(self, run: RunRow) -> bool:
        with self.runtime.database.begin() as conn:
            now = database_now(conn)
            if not schedules.take(conn, run, now + TAKEN_FOR, now):
                return False
            schedule = schedules.find(conn, run.schedule_id)
        if is_small(schedule, run):
            batch_id = self.submission.submit(schedule, run)
            if batch_id is not None:
                self.tell_dispatcher()
        else:
            self._submit_in_a_process(schedule, run)
        return True

    def _submit_in_a_process(self, schedule: ScheduleRow, run: RunRow) -> None:
        command = [sys.executable, "-P", "-c", _PROGRAM, schedule.id, run.due_at.isoformat()]
        # In a session of its own, because Ctrl-C in a worker's terminal lets what is under way finish.
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True) as process:  # noqa: S603  # no word of a person's is in it
            while not _has_ended(process, LOOK_S):
                if self._stopping.is_set():
                    process.terminate()
                    if not _has_ended(process, END_S):
                        process.kill()
                    return
        if process.returncode:
            fail(self.runtime.database, schedule, run, _how(process.returncode))
        self.tell_dispatcher()


def is_small(schedule: ScheduleRow, run: RunRow) -> bool:
    """Whether the submission of a run takes less than a process would cost to start."""
    try:
        source = Recurring.of(schedule.what).source_at(occasion_of(schedule, run))
        if isinstance(source, list):
            return True
        most = SMALL_PACKED_BYTES if source.lower().endswith(_PACKED) else SMALL_BYTES
        return Path(source).stat().st_size <= most
    except (InvalidInput, OSError):
        return True  # it fails, and quickly


def _record(conn: Connection, schedule: ScheduleRow) -> None:
    now = database_now(conn)
    found = owed(schedule.timetable, schedule.next_due, now, schedule.missed)
    for each in found.due:
        due = each
        if schedule.overlap is Overlap.SKIP and each.skipped is None:
            former = schedules.still_goes_on(conn, schedule.id)
            if former is not None:
                due = Due(each.at, skipped=f"the run of {former:%Y-%m-%d %H:%M:%S} UTC has not ended")
        if schedules.record(conn, schedule.id, due, now) and due.skipped is not None:
            log.warning("run_skipped", schedule=schedule.name, due_at=str(due.at), why=due.skipped)
    schedules.advance(conn, schedule.id, found.next_due)


def _has_ended(process: "subprocess.Popen[bytes]", within_s: float) -> bool:
    try:
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        return False
    return True


def _how(code: int) -> str:
    how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
    return f"the process that reads the file {how}, see the worker's log"
