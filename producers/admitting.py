"""The progress of a submission: rows read, then rows stored, how fast, and what is left. A short one shows nothing."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

from producers.progress import LINE_INTERVAL_S
from producers.wording import duration
from producers.words import is_terminal, tell

REDRAWN_EVERY_S = 0.2
QUIET_S = 1.0
_SOONEST_PACE_S = 1.0
_FROM_THE_START = "\r\x1b[2K"


@contextmanager
def admission_view(stream: TextIO | None = None) -> "Iterator[Admitting]":
    """Shows a submission on standard error (or `stream`): redrawn on a terminal, plain lines elsewhere."""
    stream = stream or sys.stderr
    if not is_terminal(stream):
        yield Admitting(lambda step: tell(stream, step.line), LINE_INTERVAL_S, LINE_INTERVAL_S)
        return
    view = Admitting(
        lambda step: tell(stream, _FROM_THE_START + step.words, end=""), QUIET_S, REDRAWN_EVERY_S
    )
    try:
        yield view
    finally:
        if view.has_shown:
            tell(stream, _FROM_THE_START, end="")


@dataclass(frozen=True, slots=True)
class Step:
    """How far one part of a submission is.

    Attributes:
        of: None while nobody knows how many rows there are.
        rows_per_s: None before there is a pace.
    """

    doing: str
    done: int
    of: int | None
    rows_per_s: float | None

    @property
    def eta_s(self) -> float | None:
        """Seconds that are left at this pace; None while nobody can tell."""
        return (self.of - self.done) / self.rows_per_s if self.of is not None and self.rows_per_s else None

    @property
    def words(self) -> str:
        """For people."""
        pace = "" if self.rows_per_s is None else f"  {self.rows_per_s:,.0f} rows/s"
        left = "" if self.eta_s is None else f"  {duration(self.eta_s)} left"
        of = "" if self.of is None else f" of {self.of:,}"
        return f"{self.doing}  {self.done:,}{of} rows{pace}{left}"

    @property
    def line(self) -> str:
        """One line of `key=value`, as all progress is where there is no terminal."""
        of = "" if self.of is None else f"/{self.of}"
        pace = "" if self.rows_per_s is None else f" rows_per_s={self.rows_per_s:.0f}"
        left = "" if self.eta_s is None else f" eta_s={self.eta_s:.0f}"
        return f"progress doing={self.doing} rows={self.done}{of}{pace}{left}"


class Admitting:
    """Takes in every report and shows one now and then; the pace is that of what is being done now.

    `last` is what was reported last: what is being done, rows done, of how many.
    """

    def __init__(
        self,
        show: Callable[[Step], object],
        quiet_s: float,
        every_s: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._show = show
        self._every_s = every_s
        self._now = now
        self._began = now()
        self._next_at = self._began + quiet_s
        self._doing: str | None = None
        self._done_before = 0
        self.has_shown = False
        self.last: tuple[str, int, int | None] | None = None

    def __call__(self, doing: str, done: int, of: int | None) -> None:
        """Show this, if it is time."""
        now = self._now()
        self.last = (doing, done, of)
        if self._doing not in (None, doing):
            self._began, self._done_before = now, done
        self._doing = doing
        if now >= self._next_at:
            self._next_at = now + self._every_s
            self.has_shown = True
            self._show(Step(doing, done, of, self._pace(done, now - self._began)))

    def _pace(self, done: int, seconds: float) -> float | None:
        return None if seconds < _SOONEST_PACE_S else (done - self._done_before) / seconds
