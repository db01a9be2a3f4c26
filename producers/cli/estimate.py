"""`promptmill estimate`."""

from typing import Annotated

import typer

from producers.cli import options as opt
from producers.cli.asking import Asked, options_from, with_options
from producers.cli.printing import put, put_json, say

SkipInvalid = Annotated[
    bool, typer.Option("--skip-invalid", help="Leave out rows with faults instead of estimating nothing.")
]


@with_options("name", "deadline", "priority", "tags", "notify", "new", skip_invalid=SkipInvalid)
def estimate(
    source: opt.Source,
    *,
    asked: Asked,
    as_json: opt.AsJson = False,
) -> None:
    """Say what the prompts of FILE would use and cost, and how long they would take.

    Nothing is submitted and no file is left. The figures get better with every answer to prompts of the same
    template; what they rest on is said.
    """
    show(source, asked, as_json=as_json)


def show(source: str, asked: Asked, *, as_json: bool) -> None:
    """Print the outlook for a source."""
    from producers.admitting import admission_view  # noqa: PLC0415  # the database layer takes 0.5 s
    from producers.forecast import outlook  # noqa: PLC0415  # likewise
    from producers.forecast_shown import outlook_document, outlook_lines  # noqa: PLC0415  # likewise
    from producers.submission import left_out  # noqa: PLC0415  # likewise
    from producers.wrapping import folded  # noqa: PLC0415  # likewise
    from promptmill import settings  # noqa: PLC0415  # likewise

    with admission_view() as progress:
        found = outlook(source, options_from(asked), settings=settings.load(), progress=progress)
    for notice in (*found.notices, *left_out(found.found.skipped, found.found.skipped_count)):
        say(folded(f"note: {notice}"))
    if as_json:
        put_json(outlook_document(found))
    else:
        put("\n".join(outlook_lines(found)))
