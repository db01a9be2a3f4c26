"""`promptmill pause`, `resume` and `cancel`."""

import shlex

import producers
from producers.cli.options import AsJson, BatchName
from producers.cli.printing import log_to_stderr, put_json, say


def pause(batch: BatchName, as_json: AsJson = False) -> None:
    """Begin no further call of a batch; those in flight finish and are kept."""
    handle = producers.batch(batch)
    handle.pause()
    way_on = f"promptmill resume {shlex.quote(handle.name)}"
    _report(handle, f"{handle.name} is paused; go on with: {way_on}", as_json)


def resume(batch: BatchName, as_json: AsJson = False) -> None:
    """Go on with a paused batch."""
    handle = producers.batch(batch)
    handle.resume()
    _report(handle, f"{handle.name} goes on", as_json)


def cancel(batch: BatchName, as_json: AsJson = False) -> None:
    """End a batch early: begin no further call; those in flight finish and are kept."""
    handle = producers.batch(batch)
    ended = handle.cancel().batch.state == "ended"
    now = "is canceled" if ended else "is being canceled; it ends when the calls in flight have finished"
    _report(handle, f"{handle.name} {now}", as_json)


def unless_worked_on(moment: "producers.Moment") -> str:
    """What to add for a batch that should go on, where nobody is there to work on it."""
    if moment.status.batch.state == "active" and moment.what_to_do:
        return f"; {moment.what_to_do}"
    return ""


def _report(handle: "producers.Batch", sentence: str, as_json: bool) -> None:
    from producers.documents import status_document  # noqa: PLC0415  # the database layer takes 0.5 s

    log_to_stderr()
    moment = handle.look()
    if as_json:
        put_json(status_document(moment))
    else:
        say(f"{sentence}{unless_worked_on(moment)}")
