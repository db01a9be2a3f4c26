"""One run of a schedule becomes a batch, or fails with a reason: in a worker's thread, or in a process of its own.

The one idea: it may be done twice. Name and content of the batch are a function of schedule and due time, so whoever
comes second finds the batch of the first, and the row of the run takes one outcome.

`python -c "from workers.run_submission import main; main()" SCHEDULE_ID DUE_AT` is that process.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from promptmill import logs, settings
from promptmill.clock import Clock, SystemClock
from promptmill.errors import InvalidInput, PromptmillError, Unavailable
from promptmill.intake.admit import admit
from promptmill.intake.recurring import TAG_DUE, TAG_SCHEDULE, Occasion, Recurring
from promptmill.logs import get_logger, scrub, where
from promptmill.runtime import Runtime
from promptmill.states import BatchState
from promptmill.store import batches, schedules
from promptmill.store.database import Database, database_now
from promptmill.store.schedules import RunRow, ScheduleRow

log = get_logger(__name__)

TAKEN_FOR = timedelta(seconds=30)
"""So long nobody else takes up a run; renewed while it is worked on."""
KEPT_EVERY_S = 10.0
LONGEST_REASON = 1_000
"""Characters."""
FIRST_WAIT_S = 10.0
LONGEST_WAIT_S = 300.0
NO_LONGER_AFTER = timedelta(days=1)
"""A run by hand has no next due time that would take its place."""


@dataclass(frozen=True, slots=True)
class RunSubmission:
    """Submits runs that were taken, with the parts of this process."""

    runtime: Runtime
    clock: Clock

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
        except PromptmillError as error:
            fail(database, schedule, run, str(error))
        except Exception as error:  # noqa: BLE001  # whatever it was, the other runs must go on
            log.error("run_broke", schedule=schedule.name, **where(error))  # noqa: TRY400  # its text may quote a row
            fail(database, schedule, run, f"unexpected {type(error).__name__}, see the worker's log")
        else:
            with database.begin() as conn:
                schedules.submitted(conn, run, batch_id, database_now(conn))
            log.info("run_submitted", schedule=schedule.name, due_at=str(run.due_at), batch_id=batch_id)
            return batch_id
        return None

    def _batch_of(self, schedule: ScheduleRow, run: RunRow) -> str:
        recurring, occasion = Recurring.of(schedule.what), occasion_of(schedule, run)
        options = recurring.options_at(occasion)
        if (submitted := self._submitted_before(recurring.name_at(occasion), options.tags)) is not None:
            return submitted
        return admit(
            self.runtime.database,
            recurring.source_at(occasion),
            options,
            endpoint=schedule.endpoint,
            simulated=schedule.simulated,
            clock=self.clock,
            progress=self._keeping(run),
            catalogue=self.runtime.catalogue,
            prices=self.runtime.prices,
        ).batch_id

    def _submitted_before(self, name: str, tags: object) -> str | None:
        """The whole batch of this very run, if somebody made it who could not say so any more."""
        with self.runtime.database.read() as conn:
            found = batches.find_by_name(conn, name)
        if found is None:
            return None
        if any(found.tags.get(each) != _tag(tags, each) for each in (TAG_SCHEDULE, TAG_DUE)):
            raise InvalidInput(
                f"there is a batch named {name!r} already, and it is not of this run: "
                "put {{ date }} or {{ run }} into the name"
            )
        return None if found.state is BatchState.ADMITTING else found.id

    def _keeping(self, run: RunRow) -> Callable[[str, int, int | None], None]:
        """Reports of progress: now and then they say that this run is worked on."""
        kept_at = time.monotonic()

        def keep(_doing: str, _done: int, _of: int | None) -> None:
            nonlocal kept_at
            if time.monotonic() - kept_at >= KEPT_EVERY_S:
                kept_at = time.monotonic()
                with self.runtime.database.begin() as conn:
                    schedules.keep(conn, run, database_now(conn) + TAKEN_FOR)

        return keep


def occasion_of(schedule: ScheduleRow, run: RunRow) -> Occasion:
    """The due time of a run, for its templates."""
    return Occasion(schedule.name, run.due_at.astimezone(schedule.timetable.zone), run.manual)


def fail(database: Database, schedule: ScheduleRow, run: RunRow, why: str) -> None:
    """Record why a run came to nothing; it is tried again until the next due time, ever more seldom."""
    reason = scrub(why)[:LONGEST_REASON]
    with database.begin() as conn:
        now = database_now(conn)
        again = again_at(schedule, run, now)
        schedules.failed(conn, run, reason, again, now)
    log.warning("run_failed", schedule=schedule.name, due_at=str(run.due_at), again_at=str(again or "never"))


def again_at(schedule: ScheduleRow, run: RunRow, now: datetime) -> datetime | None:
    """When a run that failed is tried again; None when the next one takes its place."""
    wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(run.tries, 10))
    again = now + timedelta(seconds=wait_s)
    begun = max(run.due_at, run.created_at)
    end = begun + NO_LONGER_AFTER if run.manual else schedule.timetable.after(begun)
    return again if end is None or again < end else None


def main() -> None:
    """Submit one run; see the module's docstring."""
    schedule_id, due_at = sys.argv[1], datetime.fromisoformat(sys.argv[2])
    config = settings.load()
    logs.configure(level=config.log_level, style=config.log_format)
    with Runtime.open(config) as runtime:
        with runtime.database.read() as conn:
            schedule = schedules.find(conn, schedule_id)
            run = schedules.run_at(conn, schedule_id, due_at)
        if run is not None:
            RunSubmission(runtime, SystemClock()).submit(schedule, run)


def _tag(tags: object, name: str) -> object:
    return tags.get(name) if isinstance(tags, dict) else None
