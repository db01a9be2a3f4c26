"""`promptmill audit`."""

from typing import Annotated

import typer

import producers
from producers.cli.exits import Exit
from producers.cli.options import AsJson, BatchNameOrNewest
from producers.cli.printing import log_to_stderr, put, put_json


def audit(
    batch: BatchNameOrNewest = None,
    ledger: Annotated[
        str | None,
        typer.Option(
            "--ledger", metavar="URL", help="The simulator to compare with; ANTHROPIC_BASE_URL when left out."
        ),
    ] = None,
    recount: Annotated[
        bool,
        typer.Option(
            "--recount", help="First count anew what is kept word by word: outcomes, stop reasons, errors."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Count a batch anew from its rows, and say whether everything adds up."""
    from producers import audit_tables  # noqa: PLC0415  # the database layer takes 0.5 s
    from promptmill.errors import InvalidInput  # noqa: PLC0415  # likewise

    log_to_stderr()
    try:
        report = producers.audit(producers.batch(batch), ledger=ledger, recount=recount)
    except InvalidInput as error:
        raise typer.BadParameter(error.why, param_hint=f"--{error.field}") from error
    if as_json:
        put_json(audit_tables.audit_document(report))
    else:
        put(audit_tables.audit_table(report))
    if not report.ok:
        raise typer.Exit(Exit.FAILURE)
