"""`promptmill status`."""

from typing import Annotated

import typer

import producers
from producers.cli.options import AsJson, BatchNameOrNewest
from producers.cli.printing import put, put_json


def status(
    batch: BatchNameOrNewest = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show progress until the batch has ended.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show where a batch stands."""
    from producers import documents, tables  # noqa: PLC0415  # the database layer takes 0.5 s

    handle = producers.batch(batch)
    if watch:
        handle.wait(progress=True)
    moment = handle.look()
    if as_json:
        put_json(documents.status_document(moment))
    elif not watch:
        put(tables.status(moment))
