"""`promptmill up`."""

import signal
import time
from typing import Annotated

import typer

from producers.cli.exits import Exit
from producers.cli.options import Workers
from producers.cli.printing import say

_LOOK_EVERY_S = 1.0


def up(
    *,
    workers: Workers = 1,
    flower_port: Annotated[
        int, typer.Option("--flower-port", min=0, max=65535, help="Where Flower listens; 0 starts none.")
    ] = 5555,
    dashboard_port: Annotated[
        int,
        typer.Option(
            "--dashboard-port", min=0, max=65535, help="Where the dashboard listens; 0 starts none."
        ),
    ] = 8788,
) -> None:
    """Run the local stack in the foreground: Redis if none is set, workers, beat, Flower, the dashboard. Ctrl-C drains it."""
    from producers.standing import standing_stack  # noqa: PLC0415  # the database layer takes 0.5 s
    from promptmill import settings  # noqa: PLC0415  # likewise

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        found = settings.load()
        ports = {"flower_port": flower_port, "dashboard_port": dashboard_port}
        with standing_stack(found, workers=workers, say=say, **ports) as stack:
            while True:
                stack.look_after()
                time.sleep(_LOOK_EVERY_S)
    except KeyboardInterrupt:
        say("stopped; what was submitted goes on with the next: promptmill up")
        raise typer.Exit(Exit.DONE) from None
