"""Recurring batches: a file or prompts that are submitted again at every due time of a timetable.

    from producers import schedules

    schedules.add("nightly", "data-{{ date }}.jsonl", cron="0 2 * * *", timezone="Asia/Shanghai", model="claude-haiku-5-5")

A schedule is a row in the database and holds nothing open; the workers submit its batches.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from producers.batches import tell_dispatcher
from producers.place import is_untouched, no_schedule
from producers.scheduling import Timing, check_words, checked, lacking, timing
from producers.submission import options_for
from producers.terms import duration_of
from promptmill.errors import InvalidInput
from promptmill.intake.options import SubmitOptions
from promptmill.intake.recurring import Occasion, Recurring
from promptmill.recurrence import Due, ScheduleState
from promptmill.runtime import Runtime, open_database
from promptmill.settings import Settings, load
from promptmill.store import Connection, schedule_runs, workers
from promptmill.store import schedules as stored
from promptmill.store.database import Database, database_now
from promptmill.store.schedule_runs import RunRow
from promptmill.store.schedules import ScheduleRow
from promptmill.store.workers import WorkerRow

SHOWN = 3
"""Due times to come, and runs that were."""
_TRIES_TO_RUN = 10


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule as it stands.

    Attributes:
        row: what was asked for.
        next_due: the due times to come, the first of them perhaps over; none while it is paused.
        runs: the last ones with their batches, the newest first.
        hint: why nothing will run although something is due, and what to do; None where nothing is wrong.
        note: what a person should know of what was just done.
    """

    row: ScheduleRow
    next_due: tuple[datetime, ...]
    runs: tuple[RunRow, ...] = ()
    hint: str | None = None
    note: str | None = None

    @property
    def name(self) -> str:
        """What people call it."""
        return self.row.name


def add(
    name: str,
    source: str | Path | None = None,
    *,
    cron: str | None = None,
    every: str | timedelta | None = None,
    timezone: str = "UTC",
    missed: str = "latest",
    overlap: str = "allow",
    prompts: Sequence[str] = (),
    batch_name: str | None = None,
    deadline: str | timedelta | None = None,
    settings: Settings | None = None,
    **options: Any,
) -> Schedule:
    """Have a file, or prompts, submitted at every due time.

    The path, the name of the batches, `system` and prompts may hold `{{ date }}`, `{{ due }}`, `{{ run }}` and
    `{{ schedule }}`; `template` knows them beside the fields of a row. See docs/schedules.md.

    Args:
        name: of the schedule.
        source: the path of a file, read by a worker when it is due; what is not absolute begins from this folder.
        cron: five fields, in the zone; six with seconds in front.
        every: `"15m"` or a timedelta; the first time is one interval from now.
        timezone: such as `Asia/Shanghai`.
        missed: `latest`, `all` or `skip`: what becomes of due times at which nothing ran.
        overlap: `allow`, or `skip` a due time at which the former batch has not ended.
        prompts: templates of prompts, in the place of a file.
        batch_name: a template; by default the schedule's name and the due time.
        deadline: how long after the due time calls are begun: `"6h"`, or a timedelta.
        settings: read from the environment when None.
        options: further ones of `submit`, without `name`, `new` and `deadline`.

    Raises:
        InvalidInput: a word has no meaning, a template is wrong, or the name is taken.
    """
    return add_with(
        name,
        timing(cron, every, timezone),
        None if source is None else str(source),
        options_for(name=batch_name, **options),
        missed=missed,
        overlap=overlap,
        prompts=prompts,
        deadline=deadline,
        settings=settings or load(),
    )


def add_with(
    name: str,
    when: Timing,
    source: str | None,
    options: SubmitOptions,
    *,
    missed: str,
    overlap: str,
    prompts: Sequence[str],
    deadline: str | timedelta | None,
    settings: Settings,
) -> Schedule:
    """The same with the options of intake; see `add`."""
    check_words(name, source, prompts)
    recurring = Recurring(
        source=source,
        prompts=tuple(prompts),
        folder=str(Path.cwd()),
        options=options,
        deadline_after=duration_of(deadline, field="deadline") if isinstance(deadline, str) else deadline,
    )
    with Runtime.open(settings) as runtime:
        with runtime.database.read() as conn:
            now = database_now(conn)
        new, note = checked(
            recurring, name, when.from_now(now), runtime, missed=missed, overlap=overlap, now=now
        )
        with runtime.database.begin() as conn:
            row = stored.add(conn, new, now)
        with runtime.database.read() as conn:
            return _seen(conn, row, note=note)


def overview(*, settings: Settings | None = None, runs: int = SHOWN) -> list[Schedule]:
    """All schedules by name, each with its next due times and its last runs."""
    settings = settings or load()
    if is_untouched(settings):
        return []
    with open_database(settings) as database, database.read() as conn:
        alive = workers.live(conn, database_now(conn))
        return [_seen(conn, row, runs, alive=alive) for row in stored.list_all(conn)]


def schedule(name: str, *, settings: Settings | None = None, runs: int = SHOWN) -> Schedule:
    """The schedule with that name or id.

    Raises:
        NotFound: there is none.
    """
    with _open(settings or load()) as database, database.read() as conn:
        return _seen(conn, stored.find(conn, name), runs)


def remove(name: str, *, settings: Settings | None = None) -> None:
    """Submit nothing more, and forget the schedule and what became of its due times. Its batches stay as they are.

    Raises:
        NotFound: there is none.
    """
    with _open(settings or load()) as database, database.begin() as conn:
        stored.remove(conn, stored.find(conn, name).id)


def pause(name: str, *, settings: Settings | None = None) -> Schedule:
    """Submit nothing at due times from now on; batches that were submitted go on.

    Raises:
        NotFound: there is none.
    """
    return _set(name, ScheduleState.PAUSED, settings)


def resume(name: str, *, settings: Settings | None = None) -> Schedule:
    """Go on with the next due time; those that passed meanwhile were not missed, they were not wanted.

    Raises:
        NotFound: there is none.
    """
    return _set(name, ScheduleState.ACTIVE, settings)


def run(name: str, *, settings: Settings | None = None) -> Schedule:
    """Submit once more now, whether it is paused or not; a worker does it within about two seconds.

    Raises:
        NotFound: there is none.
    """
    settings = settings or load()
    with _open(settings) as database:
        with database.begin() as conn:
            row, now = stored.find(conn, name), database_now(conn)
            # Not on the second, for which there may be a due time.
            at = now if now.microsecond else now + timedelta(microseconds=1)
            dues = (Due(at + timedelta(microseconds=later)) for later in range(_TRIES_TO_RUN))
            recorded = (due for due in dues if schedule_runs.record(conn, row.id, due, now, manual=True))
            due = next(recorded, None)
            if due is None:
                raise InvalidInput(f"{row.name} was told to run {_TRIES_TO_RUN} times this moment")
        tell_dispatcher(settings)
        with database.read() as conn:
            return _seen(conn, row, note=_lacking_at(row, due.at))


def _open(settings: Settings) -> AbstractContextManager[Database]:
    """The database of a schedule that is there already."""
    if is_untouched(settings):
        raise no_schedule(settings)
    return open_database(settings)


def _lacking_at(row: ScheduleRow, at: datetime) -> str | None:
    """Nothing is said of a schedule that only a newer version can read: its run says so."""
    occasion = Occasion(row.name, at.astimezone(row.timetable.zone), manual=True)
    try:
        return lacking(Recurring.of(row.what).source_at(occasion), "now")
    except InvalidInput:
        return None


def _set(name: str, state: ScheduleState, settings: Settings | None) -> Schedule:
    with _open(settings or load()) as database, database.begin() as conn:
        row, now = stored.find(conn, name), database_now(conn)
        if row.state is not state:
            stored.set_state(conn, row.id, state, row.timetable.after(now), now)
            for due in schedule_runs.close_idle(conn, row.id, "the schedule was paused first", now):
                occasion = Occasion(row.name, due.astimezone(row.timetable.zone))
                schedule_runs.cancel_half(conn, occasion.tags, now)
        return _seen(conn, stored.find(conn, row.id))


def _seen(
    conn: Connection,
    row: ScheduleRow,
    runs: int = SHOWN,
    *,
    note: str | None = None,
    alive: Sequence[WorkerRow] | None = None,
) -> Schedule:
    to_come: tuple[datetime, ...] = ()
    if row.state is ScheduleState.ACTIVE and row.next_due is not None:
        to_come = (row.next_due, *islice(row.timetable.following(row.next_due), SHOWN - 1))
    last = tuple(schedule_runs.runs_of(conn, row.id, runs))
    if alive is None:
        alive = workers.live(conn, database_now(conn))
    return Schedule(row, to_come, last, _hint(row, alive), note)


def _hint(row: ScheduleRow, alive: Sequence[WorkerRow]) -> str | None:
    """The word of a schedule is not enough: its batches are submitted by workers, of its own endpoint."""
    if any(worker.endpoint == row.endpoint for worker in alive):
        return None
    if not alive:
        return "no worker runs, and workers submit its batches: start one with `promptmill up`"
    whose = "the simulated Claude" if row.simulated else row.endpoint
    return f"it was added for {whose}, and the workers that run call another"
