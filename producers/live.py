"""Progress that redraws itself on a terminal. It has no thread: it is drawn when there is a new moment.

The one idea: lines are broken between phrases, never inside one, and the drawing gets higher but never lower, so
that the eye finds each figure where it was.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO, cast

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from producers.watch import Moment
from producers.wording import duration, money, resting, several
from producers.words import Lasting
from promptmill.states import BatchState, JobState

_STYLES = {
    JobState.SUCCEEDED: "green",
    JobState.ERRORED: "red",
    JobState.EXPIRED: "red",
    JobState.CANCELED: "yellow",
    JobState.RUNNING: "cyan",
}
_BAR_WIDTH = 40
_LEFT_WIDTH = len("100%  120 h 05 min left")
_GAP = "  "


class LiveView:
    """Shows each moment in place of the last."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._height = 0

    def show(self, moment: Moment) -> None:
        """Redraw."""
        lines = _drawing(moment, self._live.console)
        self._height = max(self._height, len(lines))
        if not moment.has_ended:
            lines += [Text()] * (self._height - len(lines))
        self._live.update(Group(*lines), refresh=True)

    def say(self, text: str) -> None:
        """Print a message above the progress."""
        self._live.console.print(Text(text))


@contextmanager
def live_view(stream: TextIO) -> Iterator[LiveView]:
    """A view on a terminal for the length of the block; its last drawing stays."""
    console = Console(file=cast(TextIO, Lasting(stream)), highlight=False)
    with Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:
        yield LiveView(live)


def _drawing(moment: Moment, console: Console) -> list[RenderableType]:
    """Its lines."""
    width = console.width
    lines: list[RenderableType] = [*_flowed(_title(moment), width), _bar(moment, width)]
    for phrases in (_states(moment), _pace(moment), _used(moment)):
        lines += _flowed(phrases, width)
    if moment.resting:
        lines += Text(f"resting: {resting(moment.resting)}").wrap(console, width)
    if moment.hint:
        lines += Text(moment.hint, style="yellow").wrap(console, width)
    return lines


def _flowed(phrases: Iterable[Text], width: int) -> list[Text]:
    """As few lines as hold the phrases, each of them whole."""
    lines: list[Text] = []
    for phrase in phrases:
        if lines and lines[-1].cell_len + len(_GAP) + phrase.cell_len <= width:
            lines[-1] = Text.assemble(lines[-1], _GAP, phrase)
        else:
            lines.append(phrase)
    return lines


def _title(moment: Moment) -> Iterator[Text]:
    batch = moment.status.batch
    yield Text(batch.name, "bold")
    yield Text(batch.model)
    yield Text("simulated Claude", "bold yellow") if batch.simulated else Text("Claude", "bold")
    if batch.state is not BatchState.ACTIVE:
        yield Text(batch.state.value)
    if moment.workers:
        yield Text(several(moment.workers, "worker"))


def _bar(moment: Moment, width: int) -> Table:
    """Its bar is as long as the largest figures leave room for, so that it does not change while they grow."""
    batch = moment.status.batch
    room = width - len(f"{batch.total:,} of {batch.total:,}") - _LEFT_WIDTH - 2 * len(_GAP)
    share = 100 * batch.done // batch.total if batch.total else 100  # 4,994 of 5,000 are not yet 100 %
    left = "" if moment.eta_s is None or moment.has_ended else f"{duration(moment.eta_s)} left"
    grid = Table.grid(padding=(0, len(_GAP)))
    grid.add_row(
        ProgressBar(total=max(1, batch.total), completed=batch.done, width=max(1, min(_BAR_WIDTH, room))),
        f"{batch.done:,} of {batch.total:,}",
        f"{share}%",
        left,
    )
    return grid


def _states(moment: Moment) -> Iterator[Text]:
    for state in JobState:
        if count := moment.status.jobs.get(state):
            yield Text(f"{state.value} {count:,}", _STYLES.get(state, ""))


def _pace(moment: Moment) -> Iterator[Text]:
    yield Text(f"{moment.answers_per_s:,.1f} answers/s")
    yield Text(f"{moment.tokens_per_s:,.0f} tokens/s")
    yield Text(f"{moment.status.failures.get('rate_limited', 0):,} refused (429)")
    if moment.bound_by:
        yield Text(f"bound by {moment.bound_by.replace('_', ' ')}")


def _used(moment: Moment) -> Iterator[Text]:
    batch = moment.status.batch
    read = batch.input_tokens + batch.cache_read_tokens + batch.cache_write_tokens
    yield Text(f"{read:,} tokens in, {batch.output_tokens:,} out")
    yield Text(money(batch))
