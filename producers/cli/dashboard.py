"""`promptmill dashboard`."""

from typing import Annotated

import typer

from producers.cli.printing import log_as_a_server, say_serving


def dashboard(
    *,
    host: Annotated[
        str,
        typer.Option(
            "--host", metavar="ADDRESS", help="Where to listen; beyond this machine it needs a token."
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Where to listen; 0 takes any that is free.")
    ] = 8788,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host",
            metavar="NAME",
            help="A name of a proxy before it, by which it is asked for; may be repeated.",
        ),
    ] = None,
) -> None:
    """Show batches, limits, workers, keys and schedules in a browser, live. Ctrl-C stops it."""
    from producers.dashboard.access import Access, names_of  # noqa: PLC0415  # the web server takes 0.3 s
    from producers.dashboard.server import serve  # noqa: PLC0415  # likewise
    from promptmill import settings  # noqa: PLC0415  # likewise

    found = settings.load()
    log_as_a_server(found)
    token = found.dashboard.read_token()
    access = Access(host, token.get_secret_value() if token else None, names_of(allow_host or ()))
    serve(found, access, port, lambda url: say_serving(found, f"dashboard at {url}; Ctrl-C stops it", url))
