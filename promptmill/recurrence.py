"""When something is due again, and what becomes of due times that nobody was there for. Pure.

The one idea: due times are a function of the timetable alone, never of when somebody looked. Two who look get the same
ones, and the key of `schedule_run` lets only one of them have each.
"""

import difflib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import dropwhile, islice, takewhile
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from promptmill.errors import InvalidInput

TAG_SCHEDULE = "schedule"
TAG_DUE = "due"
"""The tags of a batch that a schedule made; both of them, or a person chose them."""
GRACE = timedelta(minutes=5)
"""So late a due time is not yet missed, where those that are missed are skipped."""
MOST_AT_ONCE = 100
"""Due times that are taken up in one go; the rest at the next."""
_MOST_COUNTED = 1_000
_ALIKE = 0.8
_LONGEST_INTERVAL_S = 366 * 86_400
# Hours, each so many more than the one before that neither takes long; the last hold two leap days on a Monday.
_LOOKS_BACK = tuple(timedelta(hours=hours) for hours in (0.02, 1, 26, 800, 8_800, 360_000))


class Missed(StrEnum):
    """What becomes of due times at which nothing was there to act."""

    LATEST = "latest"
    ALL = "all"
    SKIP = "skip"


class Overlap(StrEnum):
    """What becomes of a due time at which the former run has not ended."""

    ALLOW = "allow"
    SKIP = "skip"


class ScheduleState(StrEnum):
    """Where a schedule stands."""

    ACTIVE = "active"
    PAUSED = "paused"


class RunState(StrEnum):
    """What became of a due time; a failed one may be tried again."""

    WAITING = "waiting"
    SUBMITTED = "submitted"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timetable:
    """The due times of a schedule: of a cron expression in a zone, or every so many seconds from a start on.

    Raises:
        InvalidInput: there is no such zone, the expression means nothing or never comes, or both or none are given.
    """

    cron: str | None = None
    every_s: int | None = None
    timezone: str = "UTC"
    starts_at: datetime

    def __post_init__(self) -> None:
        _check_zone(self.timezone)
        if (self.cron is None) == (self.every_s is None):
            raise InvalidInput("give either a cron expression or an interval", field="cron")
        if self.cron is not None:
            self._check_cron(self.cron)
        elif self.every_s is not None and not 1 <= self.every_s <= _LONGEST_INTERVAL_S:
            raise InvalidInput("an interval is from 1 second to 366 days", field="every")

    @property
    def zone(self) -> ZoneInfo:
        """Where its times are read."""
        return ZoneInfo(self.timezone)

    def after(self, moment: datetime) -> datetime | None:
        """The first due time after a moment, in UTC; None where none comes."""
        return next(self.following(moment), None)

    def following(self, moment: datetime) -> Iterator[datetime]:
        """The due times after a moment, in UTC."""
        if self.cron is not None:
            # A time that the clocks jump over is due when they have jumped; one that comes twice is due once.
            dues = (local.astimezone(UTC) for local in CronSim(self.cron, moment.astimezone(self.zone)))
            # Begun in an hour's second coming, CronSim gives the times of its first, which are over.
            yield from dropwhile(lambda due: due <= moment, dues)
        elif self.every_s is not None:
            step = timedelta(seconds=self.every_s)
            due = max(self.starts_at, self.starts_at + ((moment - self.starts_at) // step) * step)
            while True:
                due += step
                yield due

    def latest(self, moment: datetime) -> datetime | None:
        """The last due time that is not after a moment, in UTC; None where there is none."""
        if self.every_s is not None:
            step = timedelta(seconds=self.every_s)
            passed = (moment - self.starts_at) // step
            return self.starts_at + passed * step if passed >= 1 else None
        # CronSim's own way backwards gives times that there are not forwards, where clocks change.
        for back in _LOOKS_BACK:
            last = deque(takewhile(lambda due: due <= moment, self.following(moment - back)), maxlen=1)
            if last:
                return last[0]
        return None

    def _check_cron(self, cron: str) -> None:
        try:
            first = self.after(self.starts_at)
        except CronSimError as error:
            raise InvalidInput(
                f"{cron!r} is no cron expression: {_lowered(str(error))}; "
                'five fields: minute, hour, day, month, day of the week, such as "0 2 * * *"',
                field="cron",
            ) from None
        if first is None:
            raise InvalidInput(f"{cron!r} never comes", field="cron")


@dataclass(frozen=True, slots=True)
class Due:
    """One due time that is to be recorded now.

    Attributes:
        skipped: why there is to be no run; None when there is.
        note: what a person should know of it.
    """

    at: datetime
    skipped: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Owed:
    """What a look at a schedule finds: due times to record, and the first one that is left for later."""

    due: tuple[Due, ...]
    next_due: datetime | None


def owed(timetable: Timetable, next_due: datetime | None, now: datetime, missed: Missed) -> Owed:
    """What is to be done now for a schedule whose due times were recorded up to `next_due`, which was not."""
    if next_due is None or next_due > now:
        return Owed((), next_due)
    if missed is Missed.ALL:
        return _each(timetable, next_due, now)
    latest = max(next_due, timetable.latest(now) or next_due)
    before = _count(timetable, next_due, latest)
    if missed is Missed.SKIP and now - latest > GRACE:
        why = f"{_several(before + 1)} missed: nothing was there to act"
        return Owed((Due(latest, skipped=why),), timetable.after(now))
    note = f"{_several(before, 'earlier ')} missed (--missed latest)" if before else None
    return Owed((Due(latest, note=note),), timetable.after(now))


def _each(timetable: Timetable, next_due: datetime, now: datetime) -> Owed:
    rest = takewhile(lambda due: due <= now, timetable.following(next_due))
    dues = (next_due, *islice(rest, MOST_AT_ONCE - 1))
    return Owed(tuple(Due(due) for due in dues), timetable.after(dues[-1]))


def _count(timetable: Timetable, first: datetime, end: datetime) -> int:
    """How many due times there are from the first to before the end, as far as anybody wants to count."""
    if first >= end:
        return 0
    rest = takewhile(lambda due: due < end, timetable.following(first))
    return 1 + sum(1 for _ in islice(rest, _MOST_COUNTED))


def _several(count: int, which: str = "") -> str:
    if count > _MOST_COUNTED:
        return f"more than {_MOST_COUNTED:,} {which}due times were"
    return f"1 {which}due time was" if count == 1 else f"{count:,} {which}due times were"


def _check_zone(name: str) -> None:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        near = _zones_near(name)
        advice = f"did you mean {' or '.join(near)}?" if near else "give one such as Asia/Shanghai or UTC"
        raise InvalidInput(f"there is no time zone {name[:64]!r}; {advice}", field="timezone") from None


def _zones_near(name: str) -> list[str]:
    """Names alike, the whole or the city alone: people remember the city."""
    asked = name[:64].lower().replace(" ", "_")
    of_word: dict[str, str] = {}
    for zone in sorted(available_timezones(), key=lambda zone: ("/" not in zone, zone)):
        of_word.setdefault(zone.lower(), zone)
        of_word.setdefault(zone.rpartition("/")[2].lower(), zone)
    close = difflib.get_close_matches(asked, of_word, n=2, cutoff=_ALIKE)
    return list(dict.fromkeys(of_word[word] for word in close))


def _lowered(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]
