"""`promptmill keys`."""

from datetime import UTC, datetime

import typer

from producers.cli.exits import Exit
from producers.cli.options import AsJson
from producers.cli.printing import log_to_stderr, put, put_json


def keys(as_json: AsJson = False) -> None:
    """Show the keys: label, account, state, when each ends and was last used; never a value."""
    import producers  # noqa: PLC0415  # as light as the package is, its parts are not
    from producers.keys_shown import keys_document, keys_table  # noqa: PLC0415  # the database layer takes 0.5 s

    log_to_stderr("ERROR")
    found = producers.list_keys()
    if as_json:
        put_json(keys_document(found))
    else:
        put(keys_table(found, datetime.now(UTC)))
    if found.fault:
        raise typer.Exit(Exit.FAILURE)
