"""`promptmill doctor`."""

from dataclasses import asdict

import typer

from producers.cli.exits import Exit
from producers.cli.options import AsJson
from producers.cli.printing import log_to_stderr, put, put_json


def doctor(as_json: AsJson = False) -> None:
    """Show the settings that hold, try every connection, and say what to do about what is wrong."""
    from producers import tables  # noqa: PLC0415  # the database layer takes 0.5 s
    from producers.doctor import Verdict, examine, values  # noqa: PLC0415  # likewise
    from promptmill import settings  # noqa: PLC0415  # likewise

    log_to_stderr("ERROR")  # what it would warn of is what it tells
    found = settings.load(with_admin_key=True)
    held, checks = values(found), examine(found)
    healthy = all(check.verdict is not Verdict.WRONG for check in checks)
    if as_json:
        put_json(
            {
                "ok": healthy,
                "settings": [asdict(each) for each in held],
                "checks": [asdict(check) for check in checks],
            }
        )
    else:
        put(f"{tables.settings(held)}\n\n{tables.checks(checks)}")
    if not healthy:
        raise typer.Exit(Exit.FAILURE)
