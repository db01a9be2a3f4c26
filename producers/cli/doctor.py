"""`promptmill doctor`."""

from dataclasses import asdict

import typer

from producers.cli.exits import Exit
from producers.cli.options import AsJson
from producers.cli.printing import log_to_stderr, put, put_json


def doctor(as_json: AsJson = False) -> None:
    """Show the settings that hold, try every connection, and say what to do about what is wrong."""
    from producers.doctor import examine, healthy, shown, values  # noqa: PLC0415  # the database layer takes 0.5 s
    from promptmill import settings  # noqa: PLC0415  # likewise

    log_to_stderr("ERROR")  # what it would warn of is what it tells
    found = settings.load(with_admin_key=True)
    held, checks = values(found), examine(found)
    if as_json:
        put_json(
            {
                "ok": healthy(checks),
                "settings": [asdict(each) for each in held],
                "checks": [asdict(check) for check in checks],
            }
        )
    else:
        put(shown(held, checks))
    if not healthy(checks):
        raise typer.Exit(Exit.FAILURE)
