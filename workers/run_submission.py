"""One run of a schedule becomes a batch, or fails with a reason: in a worker's thread, or in a process of its own.

The one idea: it may be done twice. Name and content of the batch are a function of schedule and due time, so whoever
comes second finds the batch of the first, and the row of the run takes one outcome.

`python -c "from workers.run_submission import main; main()" SCHEDULE_ID DUE_AT PIPE` is that process, which writes a
byte into a pipe whenever it got on.
"""

import contextlib
import os
import stat
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from promptmill import logs, settings
from promptmill.clock import Clock, SystemClock
from promptmill.errors import InvalidInput, PromptmillError, Unavailable
from promptmill.intake.admit import admit, experience_in, read
from promptmill.intake.options import SubmitOptions
from promptmill.intake.recurring import Occasion, Recurring
from promptmill.logs import get_logger, scrub, where
from promptmill.recurrence import GRACE, Missed, RunState
from promptmill.runtime import Runtime
from promptmill.states import BatchState
from promptmill.store import Connection, batches, schedule_runs, schedules
from promptmill.store.batches import BatchRow
from promptmill.store.database import Database, database_now
from promptmill.store.schedule_runs import RunRow
from promptmill.store.schedules import ScheduleRow

log = get_logger(__name__)

TAKEN_FOR = timedelta(seconds=30)
"""So long nobody else takes up a run; renewed while it is worked on."""
KEPT_EVERY_S = 10.0
LONGEST_REASON = 1_000
"""Characters."""
FIRST_WAIT_S = 10.0
LONGEST_WAIT_S = 300.0
MOST_TRIES = 5
"""A run that has had so many is given up once a try of it ended without a word, as one does that kills its worker."""
TOLD_EVERY_S = 1.0
NO_LONGER_AFTER = timedelta(days=1)
"""A run by hand has no next due time that would take its place."""


class TakenOver(PromptmillError):
    """Somebody else has the run now."""


@dataclass(frozen=True, slots=True)
class RunSubmission:
    """Submits runs that were taken, with the parts of this process.

    Attributes:
        got_on: called whenever a step is done.
    """

    runtime: Runtime
    clock: Clock
    got_on: Callable[[], None] = lambda: None

    def submit(self, schedule: ScheduleRow, run: RunRow) -> str | None:
        """Make the batch of a run, or record why there is none; the batch's id.

        Raises:
            Unavailable: the database is away; the run is taken up again when it is back.
        """
        database = self.runtime.database
        try:
            batch_id = self._batch_of(schedule, run)
        except Unavailable:
            raise
        except TakenOver:
            log.warning("run_taken_over", schedule=schedule.name, due_at=str(run.due_at))
        except PromptmillError as error:
            fail(database, schedule, run, str(error))
        except Exception as error:  # noqa: BLE001  # whatever it was, the other runs must go on
            log.error("run_broke", schedule=schedule.name, **where(error))  # noqa: TRY400  # its text may quote a row
            fail(database, schedule, run, f"unexpected {type(error).__name__}, see the worker's log")
        else:
            with database.begin() as conn:
                schedule_runs.submitted(conn, run, batch_id, database_now(conn))
            log.info("run_submitted", schedule=schedule.name, due_at=str(run.due_at), batch_id=batch_id)
            return batch_id
        return None

    def _batch_of(self, schedule: ScheduleRow, run: RunRow) -> str:
        recurring, occasion = Recurring.of(schedule.what), occasion_of(schedule, run)
        options = recurring.options_at(occasion)
        former = self._former(recurring.name_at(occasion), occasion)
        if former is not None and former.state is not BatchState.ADMITTING:
            return former.id
        source = recurring.source_at(occasion)
        if isinstance(source, str):
            check_file(source)
        try:
            return self._admit(schedule, run, source, options)
        except InvalidInput as error:
            if former is None or error.field != "name":
                raise
        # What a killed process began was made of a file that has changed since; nothing of it was asked.
        with self.runtime.database.begin() as conn:
            schedule_runs.cancel_half(conn, occasion.tags, database_now(conn))
        log.warning("half_a_batch_canceled", schedule=schedule.name, batch_id=former.id)
        return self._admit(schedule, run, source, options)

    def _admit(
        self, schedule: ScheduleRow, run: RunRow, source: str | list[str], options: SubmitOptions
    ) -> str:
        runtime, progress = self.runtime, self._keeping(run)
        experience_of = experience_in(runtime.database, simulated=schedule.simulated, now=self.clock.now())
        with read(
            source,
            options,
            simulated=schedule.simulated,
            clock=self.clock,
            progress=progress,
            catalogue=runtime.catalogue,
            prices=runtime.prices,
            experience_of=experience_of,
        ) as reading:
            return admit(
                runtime.database,
                reading,
                endpoint=schedule.endpoint,
                simulated=schedule.simulated,
                clock=self.clock,
                progress=progress,
            ).batch_id

    def _former(self, name: str, occasion: Occasion) -> BatchRow | None:
        """The batch of this very run, whole or not, if somebody made it who could not say so any more."""
        with self.runtime.database.read() as conn:
            found = batches.find_by_name(conn, name)
        if found is not None and not occasion.tags.items() <= found.tags.items():
            raise InvalidInput(
                f"there is a batch named {name!r} already, and it is not of this run: "
                "put {{ date }} or {{ run }} into the name"
            )
        return found

    def _keeping(self, run: RunRow) -> Callable[[str, int, int | None], None]:
        """Reports of progress: now and then they say that this run is worked on."""
        kept_at = time.monotonic()

        def keep(_doing: str, _done: int, _of: int | None) -> None:
            nonlocal kept_at
            self.got_on()
            if time.monotonic() - kept_at >= KEPT_EVERY_S:
                kept_at = time.monotonic()
                with self.runtime.database.begin() as conn:
                    if not schedule_runs.keep(conn, run, database_now(conn) + TAKEN_FOR):
                        raise TakenOver

        return keep


def check_file(path: str) -> None:
    """Refuse what need not have an end: a pipe, a device, a socket.

    Raises:
        InvalidInput: there is something at the path, and it is neither a file nor a folder.
    """
    with contextlib.suppress(OSError):  # what is missing is said better by who opens it
        mode = Path(path).stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise InvalidInput("no regular file", file=Path(path))


def occasion_of(schedule: ScheduleRow, run: RunRow) -> Occasion:
    """The due time of a run, for its templates."""
    return Occasion(schedule.name, run.due_at.astimezone(schedule.timetable.zone), run.manual)


def fail(database: Database, schedule: ScheduleRow, run: RunRow, why: str) -> None:
    """Record why a run came to nothing; it is tried again until the next due time, ever more seldom."""
    with database.begin() as conn:
        now = database_now(conn)
        again = again_at(schedule, run, now)
        end_badly(conn, schedule, run, why, again=again, now=now)
    log.warning("run_failed", schedule=schedule.name, due_at=str(run.due_at), again_at=str(again or "never"))


def end_badly(
    conn: Connection, schedule: ScheduleRow, run: RunRow, why: str, *, again: datetime | None, now: datetime
) -> None:
    """Record it; where there is no further try, nothing half-made is left."""
    is_its_end = schedule_runs.failed(conn, run, scrub(why)[:LONGEST_REASON], again, now) and again is None
    if is_its_end:
        schedule_runs.cancel_half(conn, occasion_of(schedule, run).tags, now)


def is_superseded(schedule: ScheduleRow, run: RunRow, now: datetime) -> bool:
    """Whether the next due time has taken the place of a run that is open, and that nobody is at.

    One that has failed gives way at once; one that had not its turn yet after a while, unless every due time is wanted.
    """
    if run.manual:
        return False
    since = max(run.due_at, run.created_at)
    next_due = schedule.timetable.after(since)
    if next_due is None or next_due > now:
        return False
    if run.state is RunState.FAILED:
        return True
    return schedule.missed is not Missed.ALL and now - since > GRACE


def again_at(schedule: ScheduleRow, run: RunRow, now: datetime) -> datetime | None:
    """When a run that failed is tried again; None when the next one takes its place."""
    wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(run.tries, 10))
    again = now + timedelta(seconds=wait_s)
    begun = max(run.due_at, run.created_at)
    end = begun + NO_LONGER_AFTER if run.manual else schedule.timetable.after(begun)
    return again if end is None or again < end else None


def main() -> None:
    """Submit one run; see the module's docstring."""
    schedule_id, due_at, pipe = sys.argv[1], datetime.fromisoformat(sys.argv[2]), int(sys.argv[3])
    config = settings.load()
    logs.configure(level=config.log_level, style=config.log_format)
    with Runtime.open(config) as runtime:
        with runtime.database.read() as conn:
            schedule = schedules.find(conn, schedule_id)
            run = schedule_runs.run_at(conn, schedule_id, due_at)
        if run is not None:
            RunSubmission(runtime, SystemClock(), _telling(pipe)).submit(schedule, run)


def _telling(pipe: int) -> Callable[[], None]:
    """Bytes into a pipe, at whose other end there may be nobody any more."""
    os.set_blocking(pipe, False)
    told_at = float("-inf")

    def tell() -> None:
        nonlocal told_at
        if time.monotonic() - told_at >= TOLD_EVERY_S:
            told_at = time.monotonic()
            with contextlib.suppress(OSError):
                os.write(pipe, b".")

    return tell
