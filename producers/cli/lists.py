"""`promptmill list`."""

from typing import Annotated

import typer

import producers
from producers.cli.options import AsJson
from producers.cli.printing import put, put_json, say


def list_batches(
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="How many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the newest batches.

    With --json: a list of the documents that `status --json` prints, shortened.
    """
    from producers import documents, tables  # noqa: PLC0415  # the database layer takes 0.5 s

    batches = list(producers.list_batches(limit))
    if as_json:
        put_json(documents.list_document(batches))
    elif batches:
        put(tables.batches(batches))
    else:
        say("There is no batch yet; make one with: promptmill run FILE")
