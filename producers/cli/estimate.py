"""`promptmill estimate`."""

from typing import Annotated

import typer

from producers.cli import options as opt
from producers.cli.asking import Asked, options_from
from producers.cli.printing import put, put_json, say

SkipInvalid = Annotated[
    bool, typer.Option("--skip-invalid", help="Leave out rows with faults instead of estimating nothing.")
]


def estimate(
    source: opt.Source,
    *,
    model: opt.Model = None,
    max_tokens: opt.MaxTokens = None,
    ask_again_up_to: opt.AskAgainUpTo = None,
    system: opt.System = None,
    template: opt.Template = None,
    columns: opt.Columns = None,
    schema: opt.Schema = None,
    lane: opt.Lane = "auto",
    budget: opt.Budget = None,
    limit: opt.Limit = None,
    skip_invalid: SkipInvalid = False,
    as_json: opt.AsJson = False,
) -> None:
    """Say what the prompts of FILE would use and cost, and how long they would take.

    Nothing is submitted and no file is left. The figures get better with every answer to prompts of the same
    template; what they rest on is said.
    """
    asked = Asked(
        model=model, name=None, max_tokens=max_tokens,
        ask_again_up_to=ask_again_up_to, system=system, template=template, columns=columns,
        schema=schema, lane=lane, deadline=None, budget=budget, priority="normal", tags=None,
        limit=limit, skip_invalid=skip_invalid, new=False,
    )  # fmt: skip
    show(source, asked, as_json=as_json)


def show(source: str, asked: Asked, *, as_json: bool) -> None:
    """Print the outlook for a source."""
    from producers.admitting import admission_view  # noqa: PLC0415  # the database layer takes 0.5 s
    from producers.forecast import outlook  # noqa: PLC0415  # likewise
    from producers.forecast_shown import outlook_document, outlook_lines  # noqa: PLC0415  # likewise
    from producers.submission import left_out  # noqa: PLC0415  # likewise
    from promptmill import settings  # noqa: PLC0415  # likewise

    with admission_view() as progress:
        found = outlook(source, options_from(asked), settings=settings.load(), progress=progress)
    for notice in (*found.notices, *left_out(found.found.skipped, found.found.skipped_count)):
        say(f"note: {notice}")
    if as_json:
        put_json(outlook_document(found))
    else:
        put("\n".join(outlook_lines(found)))
