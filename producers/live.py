"""Progress that redraws itself on a terminal. It has no thread: it is drawn when there is a new moment."""

from collections.abc import Iterator
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
from promptmill.states import JobState

_STYLES = {
    JobState.SUCCEEDED: "green",
    JobState.ERRORED: "red",
    JobState.EXPIRED: "red",
    JobState.CANCELED: "yellow",
    JobState.RUNNING: "cyan",
}
_BAR_WIDTH = 40


class LiveView:
    """Shows each moment in place of the last."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def show(self, moment: Moment) -> None:
        """Redraw."""
        self._live.update(_drawing(moment), refresh=True)

    def say(self, text: str) -> None:
        """Print a message above the progress."""
        self._live.console.print(Text(text))


@contextmanager
def live_view(stream: TextIO) -> Iterator[LiveView]:
    """A view on a terminal for the length of the block; its last drawing stays."""
    console = Console(file=cast(TextIO, Lasting(stream)), highlight=False)
    with Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:
        yield LiveView(live)


def _drawing(moment: Moment) -> RenderableType:
    lines: list[RenderableType] = [_title(moment), _bar(moment), _states(moment), _figures(moment)]
    if moment.hint:
        lines.append(Text(moment.hint, style="yellow"))
    return Group(*lines)


def _title(moment: Moment) -> Text:
    batch = moment.status.batch
    return Text.assemble(
        (batch.name, "bold"),
        f"  {batch.model}  ",
        ("simulated Claude", "bold yellow") if batch.simulated else ("Claude", "bold"),
        f"  {batch.state.value}" if batch.state.value != "active" else "",
        f"  {several(moment.workers, 'worker')}" if moment.workers else "",
    )


def _bar(moment: Moment) -> Table:
    batch = moment.status.batch
    grid = Table.grid(padding=(0, 2))
    share = batch.done / batch.total if batch.total else 1.0
    left = "" if moment.eta_s is None or moment.has_ended else f"{duration(moment.eta_s)} left"
    grid.add_row(
        ProgressBar(total=max(1, batch.total), completed=batch.done, width=_BAR_WIDTH),
        f"{batch.done:,} of {batch.total:,}",
        f"{share:.0%}",
        left,
    )
    return grid


def _states(moment: Moment) -> Text:
    text = Text()
    for state in JobState:
        if count := moment.status.jobs.get(state):
            text.append(f"{state.value} {count:,}  ", style=_STYLES.get(state, ""))
    return text


def _figures(moment: Moment) -> Text:
    batch = moment.status.batch
    read = batch.input_tokens + batch.cache_read_tokens + batch.cache_write_tokens
    refused = moment.status.failures.get("rate_limited", 0)
    parts = [
        f"{moment.answers_per_s:.1f} answers/s",
        f"{moment.tokens_per_s:,.0f} tokens/s",
        f"{read:,} tokens in, {batch.output_tokens:,} out",
        money(batch),
        f"{refused:,} refused (429)",
    ]
    if moment.bound_by:
        parts.append(f"bound by {moment.bound_by.replace('_', ' ')}")
    if moment.resting:
        parts.append(f"resting: {resting(moment.resting)}")
    return Text("  ".join(parts))
