"""Progress for people: a few lines that redraw themselves on a terminal, plain `key=value` lines anywhere else."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

from producers.watch import Moment
from producers.words import is_terminal, tell
from promptmill.pricing import usd
from promptmill.states import JobState

LINE_INTERVAL_S = 5.0


class View(Protocol):
    """Something that shows moments."""

    def show(self, moment: Moment) -> None:
        """Show this moment."""
        ...

    def say(self, text: str) -> None:
        """Show a message beside the progress."""
        ...


@contextmanager
def view_for_terminal(stream: TextIO | None = None) -> Iterator[View]:
    """A view on standard error (or `stream`): redrawn on a terminal, plain lines elsewhere."""
    stream = stream or sys.stderr
    if not is_terminal(stream):
        yield Lines(lambda line: tell(stream, line))
        return
    from producers.live import live_view  # noqa: PLC0415  # rich.live takes 60 ms that plain lines do not need

    with live_view(stream) as view:
        yield view


class Lines:
    """One line every few seconds, and one whenever the state changes; made to be searched by machines."""

    def __init__(self, write: Callable[[str], object], *, every_s: float = LINE_INTERVAL_S) -> None:
        self._write = write
        self._every_s = every_s
        self._last: tuple[object, ...] = ()
        self._next_at = 0.0

    def show(self, moment: Moment) -> None:
        """Write a line when it is time for one."""
        now = time.monotonic()
        state = (moment.status.batch.state, moment.hint)
        if state == self._last and now < self._next_at:
            return
        self._last, self._next_at = state, now + self._every_s
        self._write(line_of(moment))

    def say(self, text: str) -> None:
        """Write a message as a line of its own."""
        self._write(text)


def line_of(moment: Moment) -> str:
    """A moment as one line of `key=value`."""
    batch = moment.status.batch
    jobs = moment.status.jobs
    facts: dict[str, object] = {
        "batch": batch.name,
        "state": batch.state.value,
        "done": f"{batch.done}/{batch.total}",
        **{state.value: jobs[state] for state in JobState if jobs.get(state)},
        "answers_per_s": f"{moment.answers_per_s:.1f}",
        "tokens_per_s": f"{moment.tokens_per_s:.0f}",
        "input_tokens": batch.input_tokens + batch.cache_read_tokens + batch.cache_write_tokens,
        "output_tokens": batch.output_tokens,
        "cost_usd": usd(batch.cost_nanos),
        "refused_429": moment.status.failures.get("rate_limited", 0),
    }
    if moment.bound_by:
        facts["bound_by"] = moment.bound_by
    if moment.resting:
        facts["resting"], facts["next_in_s"] = moment.resting[0], f"{moment.resting[1]:.0f}"
    if moment.eta_s is not None:
        facts["eta_s"] = f"{moment.eta_s:.0f}"
    if batch.simulated:
        facts["simulated"] = "true"
    line = "progress " + " ".join(f"{name}={word(value)}" for name, value in facts.items())
    return f"{line} hint={word(moment.hint)}" if moment.hint else line


def word(value: object) -> str:
    """A value that a reader of `key=value` takes as one: quoted where it holds a space."""
    text = str(value)
    return f'"{text}"' if " " in text else text
