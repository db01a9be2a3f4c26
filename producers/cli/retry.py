"""`promptmill retry`."""

import shlex
from typing import Annotated

import typer

import producers
from producers.cli.control import unless_worked_on
from producers.cli.options import AsJson, BatchName
from producers.cli.printing import log_to_stderr, put_json, say


def retry(
    batch: BatchName,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="OUTCOME|KIND",
            help="Only jobs that ended so: errored, expired or canceled, or errored of such a kind, as "
            "server_failed; may be repeated. errored and expired by default.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Try anew what ended without an answer; what succeeded stays."""
    from producers.documents import status_document  # noqa: PLC0415  # the database layer takes 0.5 s
    from producers.terms import retried_by  # noqa: PLC0415  # likewise
    from producers.wording import several  # noqa: PLC0415  # likewise
    from promptmill.errors import InvalidInput  # noqa: PLC0415  # likewise

    try:
        which = retried_by(only)
    except InvalidInput as error:
        raise typer.BadParameter(error.why, param_hint="--only") from error
    handle = producers.batch(batch)
    retried = handle.retry(only=only)
    if as_json:
        log_to_stderr()
        put_json({"retried": retried, **status_document(handle.look())})
    elif not retried:
        say(f"{handle.name}: nothing to retry: no job is {which}{_unless_canceled(handle, only)}")
    else:
        say(f"{handle.name}: {several(retried, 'job')} will be tried again{_unless_stopped(handle.look())}")


def _unless_canceled(handle: "producers.Batch", only: list[str] | None) -> str:
    """What there is that one must ask for by name."""
    batch = handle.status().batch
    if only or not batch.canceled or batch.was_cut or batch.purged_at:
        return ""
    return f"; {batch.canceled:,} {'is' if batch.canceled == 1 else 'are'} canceled: --only canceled"


def _unless_stopped(moment: "producers.Moment") -> str:
    """What must be done before, where something must."""
    from promptmill.store.terms import budget_of  # noqa: PLC0415  # the database layer takes 0.5 s

    batch = moment.status.batch
    if batch.state == "paused":
        return f" as soon as the batch goes on: {moment.what_to_do}"
    if (left := budget_of(batch)) and left.is_used_up:
        larger = f"promptmill set {shlex.quote(batch.name)} --budget {moment.larger_budget}"
        return f" as soon as its budget, which is used up, is a larger one: {larger}"
    return unless_worked_on(moment)
