"""`promptmill pause`, `resume` and `cancel`."""

import producers
from producers.cli.options import AsJson, BatchName
from producers.cli.printing import log_to_stderr, put_json, say


def pause(batch: BatchName, as_json: AsJson = False) -> None:
    """Begin no further call of a batch; those in flight finish and are kept."""
    handle = producers.batch(batch)
    handle.pause()
    _report(handle, f"{handle.name} is paused; go on with: promptmill resume {handle.name}", as_json)


def resume(batch: BatchName, as_json: AsJson = False) -> None:
    """Go on with a paused batch."""
    handle = producers.batch(batch)
    handle.resume()
    _report(handle, f"{handle.name} goes on", as_json)


def cancel(batch: BatchName, as_json: AsJson = False) -> None:
    """End a batch early: begin no further call; those in flight finish and are kept."""
    handle = producers.batch(batch)
    status = handle.cancel()
    _report(handle, f"{handle.name} is {status.batch.state.value}", as_json)


def _report(handle: "producers.Batch", sentence: str, as_json: bool) -> None:
    from producers.documents import status_document  # noqa: PLC0415  # the database layer takes 0.5 s

    if as_json:
        log_to_stderr()
        put_json(status_document(handle.look()))
    else:
        say(sentence)
