"""`promptmill limits --watch`: a page that redraws itself on a terminal, one plain line a pool elsewhere."""

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TextIO

from producers.limits_now import Backlog, LimitsNow
from producers.limits_tables import page
from producers.progress import word

if TYPE_CHECKING:
    from promptmill.limits import PoolState

LINE_INTERVAL_S = 5.0


def show_live(moments: Iterator[LimitsNow], stream: TextIO) -> None:
    """Show moments until they end; on a terminal each in place of the last."""
    if stream.isatty():
        _redraw(moments, stream)
    else:
        write_lines(moments, lambda line: print(line, file=stream, flush=True))


def write_lines(
    moments: Iterator[LimitsNow],
    write: Callable[[str], object],
    *,
    every_s: float = LINE_INTERVAL_S,
    monotonic: Callable[[], float] = time.monotonic,
) -> None:
    """A line a pool every few seconds; made to be searched."""
    next_at = float("-inf")
    for now in moments:
        if monotonic() < next_at:
            continue
        next_at = monotonic() + every_s
        for line in lines_of(now):
            write(line)


def lines_of(now: LimitsNow) -> list[str]:
    """A moment as lines of `key=value`, one for each pool in use."""
    if not now.in_use:
        return [f"limits pools=0 known={len(now.pools)} silence={word(now.silence or 'no call is made')}"]
    return [_line(state, now.backlog) for state in now.in_use]


def _line(state: "PoolState", backlog: Backlog | None) -> str:
    jobs = backlog.of_group(state.pool.group) if backlog else ()
    facts: dict[str, object] = {
        "account": state.pool.account,
        "group": state.pool.group,
        "in_flight": state.in_flight,
        "in_line": state.processes_waiting,
        "jobs_waiting": sum(each.pending + each.queued for each in jobs),
        "share": f"{state.share:.2f}",
        "paused_s": f"{state.paused_for:.1f}",
        "held_by": state.held_by.value if state.held_by else "nothing",
    }
    for each in state.dimensions:
        limit = "none" if each.limit is None else f"{each.limit:.0f}"
        facts[each.dimension.value] = f"{each.used_per_minute:.0f}/{limit}"
    return "limits " + " ".join(f"{name}={word(value)}" for name, value in facts.items())


def _redraw(moments: Iterator[LimitsNow], stream: TextIO) -> None:
    from rich.console import Console  # noqa: PLC0415  # 60 ms that plain lines do not need
    from rich.live import Live  # noqa: PLC0415  # likewise
    from rich.text import Text  # noqa: PLC0415  # likewise

    console = Console(file=stream, highlight=False)
    with Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:
        for now in moments:
            live.update(Text(page(now)), refresh=True)
