"""Tables for people: plain columns that a terminal, a pipe and a log show alike."""

from collections.abc import Collection, Sequence

from producers.failed import failure_lines
from producers.listing import Listed
from producers.prediction import Prediction
from producers.watch import Moment
from producers.wording import budget, duration, money, resting, several
from producers.wrapping import folded
from promptmill.pricing import usd
from promptmill.states import BatchState, JobState
from promptmill.store.batches import BatchRow
from promptmill.store.purging import why_gone

_SETTING_OF = {
    "requests": "PROMPTMILL_RPM",
    "input_tokens": "PROMPTMILL_ITPM",
    "output_tokens": "PROMPTMILL_OTPM",
}


_DROPPED_FIRST = 2
"""The last columns of a list, which a narrow terminal can do without."""


def batches(listed: Sequence[Listed], width: int | None = None) -> str:
    """One line a batch, and one for the older runs of its schedule; what is too wide loses its last columns.

    Args:
        listed: what to show.
        width: columns there are; None for as many as it takes.
    """
    head = ("NAME", "STATE", "DONE", "NOT OK", "COST USD", "CREATED", "ID")
    rows = [head, *(_batch(each.row) for each in listed)]
    for kept in range(len(head), len(head) - _DROPPED_FIRST - 1, -1):
        lines = columns(rows[0][:kept], [row[:kept] for row in rows[1:]]).splitlines()
        if width is None or max(map(len, lines)) <= width:
            break
    shown = lines[:1]
    for each, line in zip(listed, lines[1:], strict=True):
        shown.append(line)
        if each.fold.more:
            shown.append(f"  and {several(each.fold.more, 'older run')} of schedule {each.fold.schedule}")
    if any(each.row.simulated for each in listed):
        shown.append("* answered by a simulated Claude: nothing was paid")
    return "\n".join(shown)


def _batch(row: BatchRow) -> tuple[str, ...]:
    return (
        row.name,
        row.state.value,
        f"{row.done:,}/{row.total:,}",
        f"{row.done - row.succeeded:,}",
        (usd(row.cost_nanos) or "") + ("*" if row.simulated else ""),
        row.created_at.strftime("%Y-%m-%d %H:%MZ"),
        row.id,
    )


def status(moment: Moment) -> str:
    """What is known of one batch."""
    batch = moment.status.batch
    read = batch.input_tokens + batch.cache_read_tokens + batch.cache_write_tokens
    facts = {
        "batch": f"{batch.name} ({batch.id})" + (", simulated" if batch.simulated else ""),
        "model": batch.model,
        "state": _state(batch),
        "jobs": ", ".join(
            f"{moment.status.jobs[state]:,} {state.value}"
            for state in JobState
            if moment.status.jobs.get(state)
        )
        + f" of {batch.total:,}",
        "tokens": f"{read:,} in, {batch.output_tokens:,} out",
        "cost": money(batch) + (f", estimated ${usd(batch.estimate_nanos)}" if batch.estimate_nanos else ""),
        **({"budget": said} if (said := budget(batch)) else {}),
        "attempts": _attempts(moment),
        "elapsed": duration(moment.status.elapsed_s),
        "workers": several(moment.workers, "process", "processes"),
    }
    if moment.eta_s is not None:
        facts["left"] = duration(moment.eta_s)
    if moment.bound_by:
        facts["bound by"] = _bound_by(moment.bound_by, is_default=moment.bound_by_default)
    if moment.resting:
        facts["resting"] = resting(moment.resting)
    if moment.prediction and moment.prediction.projected_nanos is not None and batch.done < batch.total:
        facts["projected"] = f"${usd(moment.prediction.projected_nanos)} in all"
    if batch.is_told:
        host = moment.told_host or "somebody whose address no key here opens"
        facts["notice"] = _notice(batch, host, moment.told_fault)
    if why := why_gone(batch):
        facts["purged"] = why
    if moment.what_to_do:
        facts["hint"] = moment.what_to_do
    lines = [folded(f"{name:<9} {fact}", indent=" " * 10) for name, fact in facts.items()]
    if moment.failures and (failed := [*failure_lines(moment.failures, batch)]):
        lines += ["", *(folded(line, indent=" " * 6) for line in failed)]
    if moment.prediction and moment.prediction.jobs:
        lines += ["", _prediction(moment.prediction)]
    return "\n".join(lines)


def _notice(batch: BatchRow, host: str, fault: str | None) -> str:
    """Only the host: the rest of the address may be a secret."""
    why = f" ({fault})" if fault else ""
    if batch.notified_at and batch.notify_tries:
        tries = several(batch.notify_tries, "try", "tries")
        return f"{host} was not told: given up after {tries}{why}"
    if batch.notified_at:
        return f"{host} was told at {batch.notified_at:%Y-%m-%d %H:%M:%SZ}"
    if batch.notify_tries and batch.notify_after:
        tries = several(batch.notify_tries, "try", "tries")
        return f"{host}: {tries} so far, the next at {batch.notify_after:%H:%M:%SZ}{why}"
    return f"{host} is told when it has ended or is paused by itself"


def _state(batch: BatchRow) -> str:
    if batch.state is BatchState.ADMITTING:
        return f"{batch.state}: it is being submitted, {several(batch.total, 'row')} so far"
    return batch.state + (f": {batch.reason}" if batch.reason else "")


def _bound_by(what: str, *, is_default: bool) -> str:
    words = what.replace("_", " ")
    if not is_default:
        return words
    return f"{words} (a default limit; set {_SETTING_OF[what]}, see promptmill limits)"


def _prediction(prediction: Prediction) -> str:
    """Predicted against actual, for the jobs answered so far."""
    sides = {
        "as admitted": prediction.as_admitted,
        "as learned": prediction.as_learned,
        "actual": prediction.actual,
    }
    rows = [
        (name, f"{each.input_tokens:,}", f"{each.output_tokens:,}", usd(each.cost_nanos) or "unknown")
        for name, each in sides.items()
        if each is not None
    ]
    head = (several(prediction.jobs, "answer"), "TOKENS IN", "TOKENS OUT", "COST USD")
    return columns(head, rows, right=(1, 2, 3))


def _attempts(moment: Moment) -> str:
    failures = [f"{count:,} {kind}" for kind, count in sorted(moment.status.failures.items()) if count]
    return f"{moment.status.batch.attempts:,}" + (f", of them {', '.join(failures)}" if failures else "")


def columns(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> str:
    """A head and rows in columns as wide as they need to be; those in `right` are aligned at the right."""
    widths = [max(len(row[place]) for row in [head, *rows]) for place in range(len(head))]
    lines = [
        [
            cell.rjust(width) if place in right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in [head, *rows]
    ]
    return "\n".join("  ".join(line).rstrip() for line in lines)
