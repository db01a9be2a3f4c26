"""`promptmill list`."""

import shutil
import sys
from typing import Annotated

import typer

import producers
from producers.cli.options import AsJson
from producers.cli.printing import put, put_json, say
from producers.words import is_terminal


def list_batches(
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="How many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the newest batches; of a schedule's runs that have ended, the newest.

    With --json: all of them, a list of the documents that `status --json` prints, shortened.
    """
    from producers import documents, tables  # noqa: PLC0415  # the database layer takes 0.5 s
    from producers.listing import listed  # noqa: PLC0415  # likewise
    from producers.place import where  # noqa: PLC0415  # likewise
    from promptmill import settings  # noqa: PLC0415  # likewise

    found = settings.load()
    if as_json:
        put_json(documents.list_document(list(producers.list_batches(limit, settings=found))))
    elif batches := listed(limit, settings=found):
        width = shutil.get_terminal_size().columns if is_terminal(sys.stdout) else None
        put(tables.batches(batches, width))
    else:
        say(f"There is no batch yet{where(found)}; make one with: promptmill run FILE")
