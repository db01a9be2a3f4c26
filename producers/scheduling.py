"""Making a schedule: the words of a person are checked as they will be used, so that nothing fails at night."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from producers.submission import check_notify, will_be_simulated
from producers.terms import duration_of
from promptmill.clock import SystemClock
from promptmill.errors import InvalidInput
from promptmill.intake.admit import survey
from promptmill.intake.faults import InvalidRows
from promptmill.intake.recurring import Occasion, Recurring
from promptmill.intake.spool import Spool
from promptmill.intake.survey import Surveyor
from promptmill.recurrence import Missed, Overlap, Timetable
from promptmill.runtime import SIMULATED, Runtime
from promptmill.store.schedules import NewSchedule

LONGEST_NAME = 100
MOST_PROMPTS = 1_000
COMPARED = 50
"""Due times to come whose batches must have names of their own."""


@dataclass(frozen=True, slots=True)
class Timing:
    """When, in the words of a person."""

    cron: str | None
    every_s: int | None
    timezone: str

    def from_now(self, now: datetime) -> Timetable:
        """Its due times from now on."""
        starts_at = now.replace(microsecond=0)
        return Timetable(cron=self.cron, every_s=self.every_s, timezone=self.timezone, starts_at=starts_at)


def timing(cron: str | None, every: str | timedelta | None, timezone: str) -> Timing:
    """What was asked for.

    Raises:
        InvalidInput: the interval is none of whole seconds.
    """
    if every is None:
        return Timing(cron, None, timezone)
    interval = duration_of(every, field="every") if isinstance(every, str) else every
    if interval % timedelta(seconds=1):
        raise InvalidInput("an interval is of whole seconds", field="every")
    return Timing(cron, int(interval.total_seconds()), timezone)


def check_words(name: str, source: str | None, prompts: Sequence[str]) -> None:
    """Refuse a name or a source that is none.

    Raises:
        InvalidInput: it is so.
    """
    if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
        raise InvalidInput(f"a name is 1 to {LONGEST_NAME} printable characters", field="schedule")
    if (source is None) == (not prompts):
        raise InvalidInput("give either a file or prompts", field="file")
    if source == "-":
        raise InvalidInput("nobody is there at the standard input when it is due; give a file", field="file")
    if len(prompts) > MOST_PROMPTS:
        raise InvalidInput(f"more than {MOST_PROMPTS:,} prompts belong into a file", field="prompt")


def checked(
    recurring: Recurring,
    name: str,
    timetable: Timetable,
    runtime: Runtime,
    *,
    missed: str,
    overlap: str,
    now: datetime,
) -> tuple[NewSchedule, str | None]:
    """The schedule to be stored, and what a person should know of it.

    Raises:
        InvalidInput: a word has no meaning, a template or an option is wrong, or two runs would have the same name.
    """
    check_notify(recurring.options.notify_url, runtime.settings)
    simulated = will_be_simulated(runtime, runtime.database)
    occasions = [
        Occasion(name, due.astimezone(timetable.zone))
        for due in islice(timetable.following(timetable.starts_at), COMPARED)
    ]
    note = _check_first(recurring, occasions[0], runtime, simulated=simulated)
    _check_names(recurring, occasions)
    new = NewSchedule(
        name=name,
        timetable=timetable,
        missed=_word(Missed, missed, "missed"),
        overlap=_word(Overlap, overlap, "overlap"),
        endpoint=SIMULATED if simulated else runtime.endpoint_name,
        simulated=simulated,
        next_due=timetable.after(now),
        what=recurring.document(),
    )
    return new, note


def _check_first(recurring: Recurring, first: Occasion, runtime: Runtime, *, simulated: bool) -> str | None:
    """Refuse what could not go well at the first due time; what a person should know otherwise."""
    options, source = recurring.options_at(first), recurring.source_at(first)
    how: dict[str, Any] = {
        "simulated": simulated,
        "catalogue": runtime.catalogue,
        "prices": runtime.prices,
    }
    if isinstance(source, list):
        try:
            survey(source, options, clock=SystemClock(), **how)
        except InvalidRows as error:
            raise _of_prompts(error, options.model) from None
        return None
    with Spool() as spool:  # the file may be large, or not there yet: only the options are looked at
        Surveyor(options=options, spool=spool, today=first.due.date(), **how)
    return lacking(source)


def lacking(source: str | list[str], when: str = "when it is due") -> str | None:
    """That a file is not here, which a person should know; None where it is, or where there is none to read."""
    if isinstance(source, list) or Path(source).exists():
        return None
    return f"there is no {source} here now; a worker reads it {when}, on its own machine"


def _of_prompts(error: InvalidRows, model: str | None) -> InvalidInput:
    """In the words of who typed the prompts, who knows of no rows."""
    first = error.faults[0]
    if first.field == "model" and model is None:
        return InvalidInput("give the model of the prompts", field="model")
    return InvalidInput(f"prompt {first.line}: {first.why}", field="prompt")


def _check_names(recurring: Recurring, occasions: Sequence[Occasion]) -> None:
    of_name: dict[str, Occasion] = {}
    for each in occasions:
        name = recurring.name_at(each)
        first = of_name.setdefault(name, each)
        if first is not each:
            raise InvalidInput(
                f"the batches of {first.due:%Y-%m-%d %H:%M:%S} and {each.due:%Y-%m-%d %H:%M:%S} would both be named "
                f"{name!r}: put {{{{ date }}}} or {{{{ run }}}} into the name",
                field="name",
            )


def _word(words: Any, value: str, field: str) -> Any:
    try:
        return words(value)
    except ValueError:
        raise InvalidInput(f"{value} is none of {', '.join(words)}", field=field) from None
