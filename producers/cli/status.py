"""`promptmill status`."""

import shlex
from typing import Annotated

import typer

import producers
from producers.cli.exits import Exit
from producers.cli.options import AsJson, BatchNameOrNewest
from producers.cli.printing import log_to_stderr, put, put_json, say


def status(
    batch: BatchNameOrNewest = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show progress until the batch has ended.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show where a batch stands."""
    from producers import documents, tables  # noqa: PLC0415  # the database layer takes 0.5 s

    log_to_stderr()
    handle = producers.batch(batch)
    if watch:
        follow(handle)
    moment = handle.look()
    if as_json:
        put_json(documents.status_document(moment))
    elif not watch:
        put(tables.status(moment))


def follow(handle: "producers.Batch") -> "producers.BatchStatus":
    """Show progress until a batch has ended, or its budget is used up; Ctrl-C only looks away."""
    from promptmill.errors import BudgetExceeded  # noqa: PLC0415  # the database layer takes 0.5 s

    try:
        return handle.wait(progress=True)
    except BudgetExceeded as error:
        say(f"stopped: {error}")
        raise typer.Exit(Exit.STOPPED) from None
    except KeyboardInterrupt:
        name = shlex.quote(handle.name)
        say(f"\n{handle.name} goes on without you; look again with:\n  promptmill status {name} --watch")
        raise typer.Exit(Exit.INTERRUPTED) from None
