"""How limits are said in words: where a limit is from, why the next call waits, what waits. Pure."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from producers.limits_now import Backlog
from producers.wording import several
from promptmill.dimensions import Dimension
from promptmill.limits import Hindrance, LimitSource

if TYPE_CHECKING:
    from promptmill.limits import DimensionState, PoolState
    from promptmill.store.backlog import WaitingJobs

FROM = {
    LimitSource.CONFIGURED: "configured",
    LimitSource.PROBED: "limits api",
    LimitSource.LEARNED: "headers",
    LimitSource.DEFAULT: "default",
    LimitSource.NONE: "",
}
"""Where a limit comes from, in at most ten letters."""

_WHOLE = 0.995
_TOP = 3
_MINUTE_S = 60.0
_SHOWN_S = 0.1
"""Calls that come closer to each other than this are no wait that a person sees."""
_WHOLE_FIGURES = 10
"""From here on a figure needs no decimals."""


def why(state: "PoolState", backlog: Backlog | None) -> str:
    """What the next call of a pool waits for, as one plain sentence without a full stop."""
    held = state.held_by
    if held is None:
        return _nothing(state, backlog)
    if held is Hindrance.OTHER_PROGRAMS:
        return _others(state)
    sentences = {
        Hindrance.PAUSED: f"paused for {state.paused_for:.0f} s after a 429",
        Hindrance.OVERLOADED: f"the server was overloaded (529): {share(state.easing)} of the limit for now",
        Hindrance.STARTING: f"gentle start: {share(state.ramp)} of the limit",
        Hindrance.SAVING_UP: "saving up for a call with a large input",
    }
    return sentences.get(held) or _turn(state[Dimension(held.value)])


def share(part: float) -> str:
    """`40 %`; a small share is never shown as nothing."""
    if 0 < part < 0.01:  # noqa: PLR2004  # one percent
        return "< 1 %"
    return f"{part:.0%}".replace("%", " %")


def allowed(state: "PoolState") -> str:
    """How much of the limits may be used now, and why not all where the next call's sentence does not say it."""
    if state.share >= _WHOLE:
        return "all of the limit"
    reasons = []
    if state.ramp < _WHOLE and state.held_by is not Hindrance.STARTING:
        reasons.append("gentle start")
    if state.easing < _WHOLE and state.held_by is not Hindrance.OVERLOADED:
        reasons.append("after overloads")
    return f"{share(state.share)} of the limit" + (f" ({', '.join(reasons)})" if reasons else "")


def waiting(jobs: "Sequence[WaitingJobs]") -> str:
    """How many jobs wait, and of which batches most."""
    queued, total = sum(each.queued for each in jobs), sum(each.queued + each.pending for each in jobs)
    if not total:
        return "none"
    batches = [each for each in jobs if each.queued + each.pending]
    top = [f"{each.batch_name} {each.queued + each.pending:,}" for each in batches[:_TOP]]
    if rest := sum(each.queued + each.pending for each in batches[_TOP:]):
        top.append(f"{several(len(batches) - _TOP, 'other batch', 'other batches')} {rest:,}")
    return f"{total:,}, {queued:,} of them handed to workers: {', '.join(top)}"


def _turn(each: "DimensionState") -> str:
    """Calls are paced: one may wait beside a full bucket, so nothing is said to be used up."""
    if each.limit is None:
        return "waits its turn"
    amount = _figure(each.limit)
    what = each.dimension.value.replace("_", " ")
    sentence = f"waits its turn: {amount} {what.removesuffix('s') if amount == '1' else what} a minute"
    every_s = _MINUTE_S / each.limit
    if each.dimension is not Dimension.REQUESTS or every_s < _SHOWN_S:
        return sentence
    return f"{sentence}, one every {_figure(every_s)} s"


def _figure(number: float) -> str:
    return f"{number:,.0f}" if number >= _WHOLE_FIGURES else f"{number:.2g}"


def _others(state: "PoolState") -> str:
    taken = [
        (each.foreign / each.limit, each.dimension.value.replace("_", " "))
        for each in state.dimensions
        if each.limit
    ]
    if not taken:
        return "another program takes a part"
    part, dimension = max(taken)
    return f"another program takes {share(part)} of the {dimension}"


def _nothing(state: "PoolState", backlog: Backlog | None) -> str:
    jobs = backlog.of_group(state.pool.group) if backlog else ()
    if backlog and not backlog.workers and any(each.queued + each.pending for each in jobs):
        return "jobs wait, but no worker is running; start one with: promptmill up"
    return "nothing waits"
