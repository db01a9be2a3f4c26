"""`promptmill audit`."""

import typer

import producers
from producers.cli.exits import Exit
from producers.cli.options import AsJson, BatchNameOrNewest
from producers.cli.printing import log_to_stderr, put, put_json


def audit(batch: BatchNameOrNewest = None, as_json: AsJson = False) -> None:
    """Count a batch anew from its rows, and say whether everything adds up."""
    from producers import audit_tables  # noqa: PLC0415  # the database layer takes 0.5 s

    log_to_stderr()
    report = producers.audit(producers.batch(batch))
    if as_json:
        put_json(audit_tables.audit_document(report))
    else:
        put(audit_tables.audit_table(report))
    if not report.ok:
        raise typer.Exit(Exit.FAILURE)
