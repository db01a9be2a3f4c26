"""The progress of a submission: rows read, then rows stored, how fast, and what is left. A short one shows nothing."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from producers.progress import LINE_INTERVAL_S
from producers.wording import duration
from promptmill.intake.survey import Progress

REDRAWN_EVERY_S = 0.2
QUIET_S = 1.0
_FROM_THE_START = "\r\x1b[2K"


@contextmanager
def admission_view(stream: TextIO | None = None) -> Iterator[Progress]:
    """Shows a submission on standard error (or `stream`): redrawn on a terminal, plain lines elsewhere."""
    stream = stream or sys.stderr
    if not stream.isatty():
        yield Admitting(
            lambda step: print(step.line, file=stream, flush=True), LINE_INTERVAL_S, LINE_INTERVAL_S
        )
        return
    view = Admitting(
        lambda step: print(_FROM_THE_START + step.words, end="", file=stream, flush=True),
        QUIET_S,
        REDRAWN_EVERY_S,
    )
    try:
        yield view
    finally:
        if view.has_shown:
            print(end=_FROM_THE_START, file=stream, flush=True)


class Step:
    """How far one part of a submission is: `of` is None while nobody knows how many rows there are."""

    def __init__(self, doing: str, done: int, of: int | None, seconds: float) -> None:
        self.doing = doing
        self.done = done
        self.of = of
        self.rows_per_s = done / seconds if seconds else 0.0

    @property
    def eta_s(self) -> float | None:
        """Seconds that are left at this pace; None while nobody can tell."""
        return (self.of - self.done) / self.rows_per_s if self.of is not None and self.rows_per_s else None

    @property
    def words(self) -> str:
        """For people."""
        left = "" if self.eta_s is None else f"  {duration(self.eta_s)} left"
        of = "" if self.of is None else f" of {self.of:,}"
        return f"{self.doing}  {self.done:,}{of} rows  {self.rows_per_s:,.0f} rows/s{left}"

    @property
    def line(self) -> str:
        """One line of `key=value`, as all progress is where there is no terminal."""
        of = "" if self.of is None else f"/{self.of}"
        left = "" if self.eta_s is None else f" eta_s={self.eta_s:.0f}"
        return f"progress doing={self.doing} rows={self.done}{of} rows_per_s={self.rows_per_s:.0f}{left}"


class Admitting:
    """Takes in every report and shows one now and then; the pace is that of what is being done now."""

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
        self._next_at = now() + quiet_s
        self._doing: str | None = None
        self._began = now()
        self.has_shown = False

    def __call__(self, doing: str, done: int, of: int | None) -> None:
        """Show this, if it is time."""
        now = self._now()
        if doing != self._doing:
            self._began, self._doing = (self._began if self._doing is None else now), doing
        if now >= self._next_at:
            self._next_at = now + self._every_s
            self.has_shown = True
            self._show(Step(doing, done, of, now - self._began))
